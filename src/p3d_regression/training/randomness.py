"""The states of all generators that a training draws from, as plain data that a checkpoint can hold."""

import random
from typing import Any

import numpy as np

from p3d_regression.training import augmentation


def state_of(dataset: Any) -> dict[str, Any]:
    """The states of the generators of this process.

    Args:
        dataset: of the training; its transforms have generators of their own.
    """
    import torch

    version, words, gauss = random.getstate()
    found = {
        "torch": torch.get_rng_state(),
        "numpy": _plain(np.random.get_state()),
        "python": [version, torch.tensor(words), gauss],
        "transforms": [_plain(transform.random_state.get_state()) for transform in augmentation.transforms_of(dataset)],
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def restore(state: dict[str, Any], dataset: Any) -> None:
    """Let all generators go on from a state."""
    import torch

    torch.set_rng_state(state["torch"])
    np.random.set_state(_legacy(state["numpy"]))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    for transform, held in zip(augmentation.transforms_of(dataset), state["transforms"], strict=True):
        transform.random_state.set_state(_legacy(held))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _plain(state: Any) -> list[Any]:
    import torch

    name, words, *others = state
    return [
        str(name),
        torch.from_numpy(words.astype(np.int64)),
        *(float(n) if isinstance(n, float) else int(n) for n in others),
    ]


def _legacy(held: list[Any]) -> tuple[Any, ...]:
    name, words, *others = held
    return (name, words.numpy().astype(np.uint32), *others)
