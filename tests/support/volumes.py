"""Networks, volumes and loaders for predictions, without a training."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from pytorch3dunet.datasets.utils import get_test_loaders
from pytorch3dunet.unet3d.config import TorchDevice
from pytorch3dunet.unet3d.model import get_model

from p3d_regression.model.contract import contract_of
from p3d_regression.model.unet import note_contract

RAW = [{"name": "Standardize", "mean": 0.5, "std": 2.0}, {"name": "ToTensor", "expand_dims": True}]


def section_of(channels: int, **more: Any) -> dict[str, Any]:
    section = {"name": "UNet3D", "in_channels": 1, "out_channels": channels, "f_maps": [4, 8], "num_groups": 2}
    return {**section, "final_activation": "none", **more}


def net(channels: int, name: str = "UNet3D", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return get_model(section_of(channels, name=name)).eval()


def write_volume(path: Path, shape: tuple[int, ...], **attributes: Any) -> np.ndarray:
    raw = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["raw"] = raw
        file["raw"].attrs.update(attributes)
    return raw


def config_of(path: Path, patch: list[int], stride: list[int], halo: list[int], **loaders: Any) -> dict[str, Any]:
    slices = {"name": "SliceBuilder", "patch_shape": patch, "stride_shape": stride, "halo_shape": halo}
    test = {"file_paths": [str(path)], "slice_builder": slices | {"skip_shape_check": True}}
    test["transformer"] = {"raw": RAW}
    config = {"dataset": "StandardHDF5Dataset", "num_workers": 0, "batch_size": 2, "test": test, **loaders}
    return {"loaders": config, "device": TorchDevice.CPU}


def loader_of(path: Path, patch: list[int], stride: list[int], halo: list[int], **loaders: Any) -> Any:
    (loader,) = get_test_loaders(config_of(path, patch, stride, halo, **loaders))
    return loader


def write_checkpoint(path: Path, section: dict[str, Any], seed: int, **training: Any) -> Any:
    """Write a checkpoint as a training with this model section leaves it; returns its network."""
    torch.manual_seed(seed)
    model = get_model(section).eval()
    phase = {"transformer": {"raw": RAW, "label": [{"name": "ToTensor", "expand_dims": True}]}}
    config = {"model": section, "loss": {"name": "MSELoss"}, "loaders": {"train": phase, "val": phase}, **training}
    note_contract(model, contract_of(config).plain)
    path.parent.mkdir(exist_ok=True)
    torch.save({"model_state_dict": model.state_dict()}, path)
    return model
