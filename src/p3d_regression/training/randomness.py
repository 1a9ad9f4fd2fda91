"""The states of all generators that a training draws from, as plain data that a checkpoint can hold."""

import random
from typing import Any

import numpy as np

from p3d_regression.training import augmentation


def state_of(loader: Any) -> dict[str, Any]:
    """The states of the generators of this process.

    Args:
        loader: of the training; the transforms of its dataset have generators of their own.
    """
    import torch

    version, words, gauss = random.getstate()
    found = {
        "torch": torch.get_rng_state(),
        "numpy": _plain(np.random.get_state()),
        "python": [version, torch.tensor(words), gauss],
        "transforms": [_plain(transform.random_state.get_state()) for transform in _transforms(loader)],
    }
    # asking for the state would start CUDA in a training on another device
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def restore(state: dict[str, Any], loader: Any) -> None:
    """Let all generators go on from a state; those of transforms begin anew if there are others than before."""
    import torch

    torch.set_rng_state(state["torch"])
    np.random.set_state(_legacy(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    transforms = _transforms(loader)
    if len(transforms) == len(state["transforms"]):
        for transform, held in zip(transforms, state["transforms"], strict=True):
            transform.random_state.set_state(_legacy(held))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _transforms(loader: Any) -> list[Any]:
    # worker processes get other generators in each epoch, from torch's
    return [] if getattr(loader, "num_workers", 0) > 0 else augmentation.transforms_of(loader.dataset)


def _plain(state: Any) -> list[Any]:
    import torch

    name, words, *others = state
    numbers = [float(n) if isinstance(n, float) else int(n) for n in others]
    return [str(name), torch.from_numpy(words.view(np.int32).copy()), *numbers]


def _legacy(held: list[Any]) -> tuple[Any, ...]:
    name, words, *others = held
    return (name, words.numpy().view(np.uint32), *others)
