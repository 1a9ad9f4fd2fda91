"""Checkpoints of pytorch-3dunet: read as data, and where a config names one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load_checkpoint(path: str | Path, *, mmap: bool = False) -> Any:
    """Read a checkpoint onto the CPU, as data: nothing in it is executed, whatever torch does by default.

    Args:
        path: of the file.
        mmap: whether its weights are left on disk until they are used.

    Raises:
        Exception: the file is not a checkpoint, or holds objects that are not plain data.
    """
    import torch

    # said here, and not left to the default: before torch 2.6 that executes pickles, and
    # TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD makes it do so today
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def checkpoint_weights(path: str) -> Mapping[str, Any]:
    """The U-Net's ``state_dict`` in a checkpoint; its values are left on disk.

    Raises:
        Exception: the file is not one of pytorch-3dunet's checkpoints.
    """
    try:
        state = load_checkpoint(path, mmap=True)
    except RuntimeError:
        # of a torch before 1.6: cannot be left on disk
        state = load_checkpoint(path)
    weights: Mapping[str, Any] = state["model_state_dict"]
    if not isinstance(weights, Mapping):
        raise TypeError(f"its model_state_dict is a {type(weights).__name__}")
    return weights


def metadata_of(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the U-Net's ``state_dict`` says of itself."""
    metadata: Mapping[str, Any] = getattr(weights, "_metadata", {}).get("", {})
    return metadata


def checkpoint_metadata(path: str) -> Mapping[str, Any]:
    """What the U-Net's ``state_dict`` in a checkpoint says of itself.

    Raises:
        Exception: the file is not one of pytorch-3dunet's checkpoints.
    """
    return metadata_of(checkpoint_weights(path))


def checkpoint_of(config: Mapping[str, Any], mode: str) -> str | None:
    """The checkpoint whose weights a training or a prediction starts from; None if it names no file."""
    if mode == "predict":
        path = config.get("model_path")
    else:
        trainer = config.get("trainer")
        trainer = trainer if isinstance(trainer, Mapping) else {}
        # upstream looks at pre_trained only where resume is not given
        path = trainer.get("resume") or trainer.get("pre_trained")
    return path if isinstance(path, str) and Path(path).is_file() else None
