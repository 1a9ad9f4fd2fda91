"""Augmentation that differs from epoch to epoch, also where worker processes make the patches.

The transforms of pytorch-3dunet draw from generators that the main process has made. Each epoch starts new workers with
copies of these, in the state of the beginning: every epoch repeats the draws of the first.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from p3d_regression import group


def vary(loader: Any) -> None:
    """Let the workers of a ``DataLoader`` draw anew in each epoch, reproducibly from the seed of torch."""
    if getattr(loader, "num_workers", 0) > 0 and loader.worker_init_fn is None:
        loader.worker_init_fn = _draw_anew


def _draw_anew(worker: int) -> None:
    """In a worker that has just started: give all transforms other generators."""
    import torch
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    if info is None:
        return
    # torch has seeded the worker: another number for each epoch and worker, from the seed of the training
    draw_from([torch.initial_seed(), group.rank()], info.dataset)


def draw_from(entropy: list[int], whole: Any) -> None:
    """Give the transforms of a dataset, or of all its parts, generators with these seeds."""
    seeds = np.random.SeedSequence(entropy)
    datasets = getattr(whole, "datasets", [whole])
    for dataset, child in zip(datasets, seeds.spawn(len(datasets)), strict=True):
        seed = child.generate_state(4)
        for transform in _transforms(dataset):
            # equal ones for raw and labels, which have to move together
            transform.random_state = np.random.RandomState(seed)


def _transforms(dataset: Any) -> Iterator[Any]:
    """Those that a dataset applies and that draw random numbers."""
    for attribute in vars(dataset).values():
        for transform in getattr(attribute, "transforms", ()):
            if isinstance(getattr(transform, "random_state", None), np.random.RandomState):
                yield transform


def transforms_of(whole: Any) -> list[Any]:
    """The transforms of a dataset, or of all its parts, that draw random numbers."""
    return [transform for dataset in getattr(whole, "datasets", [whole]) for transform in _transforms(dataset)]
