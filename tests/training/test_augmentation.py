"""What the workers of a training draw, with real datasets and worker processes."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.datasets.utils import get_train_loaders

from p3d_regression.training import augmentation
from support.lab import training_config, write_volumes

TENSOR = {"name": "ToTensor", "expand_dims": True}
FLIPS = [{"name": "RandomFlip"}, {"name": "RandomRotate90"}]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    write_volumes(tmp_path)
    with h5py.File(tmp_path / "train.h5", "a") as file:
        del file["label"], file["raw"]
        file["raw"] = np.random.default_rng(0).normal(size=(4, 64, 256)).astype("f4")
        file["label"] = file["raw"][()]
    config = training_config(tmp_path, {"name": "UNet3D"})
    config["loaders"] |= {"num_workers": 2, "batch_size": 1}
    noise = {"name": "AdditiveGaussianNoise", "execution_probability": 1.0}
    config["loaders"]["train"]["transformer"] = {"raw": [*FLIPS, noise, TENSOR], "label": [*FLIPS, TENSOR]}
    return config


def epochs(config: dict[str, Any], seed: int, *, varied: bool, workers: int = 2) -> list[list[torch.Tensor]]:
    """Raw patches of three epochs, in the order of the samples."""
    torch.manual_seed(seed)
    config["loaders"]["num_workers"] = workers
    loader = get_train_loaders(config)["train"]
    if varied:
        augmentation.vary(loader)
    found = []
    for _ in range(3):
        patches = []
        for raw, label in loader:
            # they are one dataset: what moves the one moves the other, and the rest is noise
            assert float((raw - label).abs().max()) < 8
            assert np.corrcoef(raw.ravel(), label.ravel())[0, 1] > 0.6
            patches.append(raw)
        found.append(sorted(patches, key=lambda patch: float(patch.sum())))
    return found


def noises(patches: list[torch.Tensor]) -> set[float]:
    return {round(float(patch.double().std()), 6) for patch in patches}


def test_pytorch_3dunet_alone_repeats_itself(config: dict[str, Any]) -> None:
    first, second, third = map(noises, epochs(config, 1, varied=False))
    assert first & second & third


def test_no_epoch_repeats_another(config: dict[str, Any]) -> None:
    first, second, third = map(noises, epochs(config, 1, varied=True))
    assert not first & second
    assert not second & third
    assert not first & third


def test_the_same_seed_gives_the_same_draws(config: dict[str, Any]) -> None:
    one, same, other = (epochs(config, seed, varied=True) for seed in (1, 1, 2))
    assert [noises(epoch) for epoch in one] == [noises(epoch) for epoch in same]
    assert [noises(epoch) for epoch in one] != [noises(epoch) for epoch in other]


def test_ranks_draw_apart(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one = epochs(config, 1, varied=True)
    launched = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    other = epochs(config, 1, varied=True)
    assert not noises(one[0]) & noises(other[0])


def test_without_workers_and_with_a_function_of_the_users_nothing_changes(config: dict[str, Any]) -> None:
    config["loaders"]["num_workers"] = 0
    loader = get_train_loaders(config)["train"]
    augmentation.vary(loader)
    assert loader.worker_init_fn is None
    config["loaders"]["num_workers"] = 1
    loader = get_train_loaders(config)["train"]
    loader.worker_init_fn = print
    augmentation.vary(loader)
    assert loader.worker_init_fn is print
