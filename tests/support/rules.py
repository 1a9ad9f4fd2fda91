"""The rules of the project with the two configs of their documentation, and the data that these name."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from pytorch3dunet.unet3d.model import get_model

from p3d_regression.activations.registry import resolve
from p3d_regression.checks.rule import Rule
from p3d_regression.checks.rules import CHAPTERS
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.model.contract import contract_of
from p3d_regression.model.unet import note_contract
from support.checks import merged
from support.lab import prediction_config, training_config, write_config, write_volumes

FOLLOWING = {"name": "residual", "intercept": 0.0, "slope": 1.0, "scale": 1.0}

OWN = [rule for chapter in CHAPTERS.values() for rule in chapter]


def write_rule_data(directory: Path) -> Path:
    """Write volumes and checkpoints as the examples of the rules name them; return the directory."""
    write_volumes(directory)
    for name in ("train", "val"):
        with h5py.File(directory / f"{name}.h5", "a") as file:
            raw, label = file["raw"][()], file["label"][()]
            file["half_label"] = label[:, ::2, ::2]
            file["label_with_nan"] = np.where(raw > 0.99, np.nan, label)
            file["raw_with_nan"] = np.where(raw > 0.99, np.nan, raw)
            partly = np.abs(label) / 100
            partly[:, :, :32] -= 0.5 if name == "train" else 0
            file["partly_negative"] = partly
            file["positive"] = np.abs(label)
            file["zero"] = np.zeros_like(label)
            file["label_with_fill"] = np.where(raw > 0.7, -9999.0, label).astype(np.float32)
            file["in_other_units"] = label * (1000 if name == "train" else 1)
            level = np.linspace(1000, 200, raw.shape[2])
            file["level_falls"] = (level * (1 + 0.02 * raw)).astype(np.float32)
            file["level_falls_too"] = (level * (1 + 0.01 * raw)).astype(np.float32)
            file["counts"] = (1000 + 20 * label).astype(np.uint16)
            angles = np.linspace(0, 2 * np.pi, raw.size).reshape(raw.shape)
            file["directions"] = np.stack([0 * angles, np.sin(angles), np.cos(angles)]).astype(np.float32)
            file["padded_before"] = raw
            file["raw_padded"] = np.pad(raw, 1)
    model = torch.nn.Conv3d(1, 1, 1)
    state = model.state_dict()
    state._metadata[""][checkpoint_memory.METADATA_KEY] = checkpoint_memory.to_plain(
        checkpoint_memory.Memory(resolve("none", 1))
    )
    torch.save({"model_state_dict": state}, directory / "trained_with_none.pytorch")
    (directory / "resumed" / "logs" / "first").mkdir(parents=True)
    trained = _normalised_alike(training_config(directory, {"name": "UNet3D"}))
    write_config(directory / "resumed" / "logs" / "first" / "train.yml", trained)
    torch.save({"model_state_dict": model.state_dict()}, directory / "resumed" / "last_checkpoint.pytorch")
    _write_checkpoint(directory / "wide", {"f_maps": [16, 32]})
    _write_checkpoint(directory / "leaky", {"layer_order": "gcl"}, with_contract=True)
    _write_checkpoint(directory / "retrained", {})
    _write_checkpoint(directory / "following", {"target_scaling": FOLLOWING}, with_contract=True)
    for run, groups in {"first": 4, "second": 8}.items():
        (directory / "retrained" / "logs" / run).mkdir(parents=True)
        trained["model"]["num_groups"] = groups
        write_config(directory / "retrained" / "logs" / run / "train.yml", trained)
    (directory / "checkpoints").mkdir()
    torch.save({"model_state_dict": model.state_dict()}, directory / "checkpoints" / "best_checkpoint.pytorch")
    (directory / "predicted_by_others").mkdir()
    with h5py.File(directory / "predicted_by_others" / "val_predictions.h5", "w") as file:
        file["predictions"] = np.zeros((1, 4, 64, 64), np.float32)
    return directory


def _write_checkpoint(directory: Path, section: dict[str, Any], *, with_contract: bool = False) -> None:
    """Write a checkpoint as a training with this model section leaves it."""
    directory.mkdir()
    ours = {"final_activation": "none"} if with_contract else {}
    config = training_config(directory, {"name": "UNet3D", **section, **ours})
    model = get_model(config["model"])
    if with_contract:
        note_contract(model, contract_of(config).plain)
    torch.save({"model_state_dict": model.state_dict()}, directory / "best_checkpoint.pytorch")


def _normalised_alike(config: dict[str, Any]) -> dict[str, Any]:
    """The config with fixed numbers in Standardize: without them, P3D501 finds something in every example."""
    for phase in filter(lambda value: isinstance(value, dict), config["loaders"].values()):
        first, *others = phase["transformer"]["raw"]
        phase["transformer"]["raw"] = [first | {"mean": 0.5, "std": 0.3}, *others]
    return config


def config_of(rule: Rule, lines: str, data: Path) -> dict[str, Any]:
    mode = "predict" if "model_path" in lines else rule.modes[0]
    model = {"name": "UNet3D"}
    base = _normalised_alike(training_config(data, model) if mode == "train" else prediction_config(data, model))
    if mode == "predict":
        base["model_path"] = str(data / "checkpoints" / "best_checkpoint.pytorch")
    return _rooted(merged(base, yaml.safe_load(lines)), data)


def write_example(rule: Rule, lines: str, data: Path, path: Path) -> Path:
    """The config, and once more its example where that is about the text itself."""
    write_config(path, config_of(rule, lines, data))
    if rule.code == "P3D215":
        config = config_of(rule, lines, data)
        del config["optimizer"]
        path.write_text(f"{yaml.safe_dump(config)}\n{lines}\n")
    return path


def _rooted(config: Any, data: Path) -> Any:
    """The paths of the examples are those of the directory."""
    match config:
        case dict():
            return {key: _rooted(value, data) for key, value in config.items()}
        case list():
            return [_rooted(value, data) for value in config]
        case str() if re.fullmatch(
            r"[a-z_/]+\.(h5|pytorch)|data(/[a-z]+)?|checkpoints|predicted_by_others", config
        ) and not config.startswith("/"):
            return str(data / config)
    return config
