"""Patches of a raw volume with their halo, without the volume in memory, and without a copy in the input file."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import h5py
import numpy as np

from p3d_regression.volumes.padding import indices, padded_part


def read_as_needed(dataset: Any) -> None:
    """Let a dataset of pytorch-3dunet read the planes that a patch needs.

    LazyHDF5Dataset would write a padded copy of the volume into the input file, StandardHDF5Dataset keep the volume and
    a padded copy in memory.

    Args:
        dataset: for predictions; of another class than those two it is left alone.
    """
    readers: dict[str, Callable[..., Any]] = {"LazyHDF5Dataset": _patch, "StandardHDF5Dataset": _Slab()}
    reader = readers.get(type(dataset).__name__)
    if reader is not None and hasattr(dataset, "get_raw_padded_patch"):
        halo = tuple(dataset.halo_shape)
        dataset.get_raw_padded_patch = partial(reader, str(dataset.file_path), dataset.raw_internal_path, halo)


def _patch(path: str, key: str, halo: Sequence[int], place: Sequence[slice]) -> Any:
    with h5py.File(path, "r") as file:
        return padded_part(file[key], place, halo)


class _Slab:
    """The same for patches that come row by row: the planes of a row are read once, and kept for the next patch."""

    def __init__(self) -> None:
        self._first, self._planes = 0, np.empty((0, 0, 0))

    def __call__(self, path: str, key: str, halo: Sequence[int], place: Sequence[slice]) -> Any:
        with h5py.File(path, "r") as file:
            dataset = file[key]
            z, y, x = indices(place, halo, dataset.shape[-3:])
            low, high = int(z.min()), int(z.max()) + 1
            if self._planes.ndim != dataset.ndim or not self._has(low, high):
                self._planes = np.empty((0, 0, 0))  # before others take their place in memory
                self._first, self._planes = low, np.asarray(dataset[..., low:high, :, :])
        return self._planes[..., (z - self._first)[:, None, None], y[None, :, None], x[None, None, :]]

    def _has(self, low: int, high: int) -> bool:
        return self._first <= low and high <= self._first + self._planes.shape[-3]
