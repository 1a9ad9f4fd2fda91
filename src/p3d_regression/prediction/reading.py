"""Patches of a raw volume with their halo, without the volume in memory, and without a copy in the input file."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt


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
    """A part of a volume that is padded with its mirror image, of which only this part is read."""
    with h5py.File(path, "r") as file:
        dataset = file[key]
        indices = _indices(place, halo, dataset.shape[-3:])
        block = np.asarray(dataset[(..., *(slice(int(i.min()), int(i.max()) + 1) for i in indices))])
    z, y, x = (i - i.min() for i in indices)
    return block[..., z[:, None, None], y[None, :, None], x[None, None, :]]


class _Slab:
    """The same for patches that come row by row: the planes of a row are read once, and kept for the next patch."""

    def __init__(self) -> None:
        self._first, self._planes = 0, np.empty((0, 0, 0))

    def __call__(self, path: str, key: str, halo: Sequence[int], place: Sequence[slice]) -> Any:
        with h5py.File(path, "r") as file:
            dataset = file[key]
            z, y, x = _indices(place, halo, dataset.shape[-3:])
            low, high = int(z.min()), int(z.max()) + 1
            if self._planes.ndim != dataset.ndim or not self._has(low, high):
                self._planes = np.empty((0, 0, 0))  # before others take their place in memory
                self._first, self._planes = low, np.asarray(dataset[..., low:high, :, :])
        return self._planes[..., (z - self._first)[:, None, None], y[None, :, None], x[None, None, :]]

    def _has(self, low: int, high: int) -> bool:
        return self._first <= low and high <= self._first + self._planes.shape[-3]


def _indices(place: Sequence[slice], halo: Sequence[int], shape: Sequence[int]) -> list[npt.NDArray[np.intp]]:
    parts = zip(place[-3:], halo, shape, strict=True)
    return [mirrored(part.start, part.stop, margin, n) for part, margin, n in parts]


def mirrored(start: int, stop: int, halo: int, size: int) -> npt.NDArray[np.intp]:
    """Indices into an axis for a part of it that is padded with its mirror image, as ``numpy.pad(mode="reflect")``.

    Args:
        start, stop: of the part, in the padded axis.
        halo: by which the axis is padded on both sides.
        size: of the axis.

    >>> mirrored(0, 6, 2, 5).tolist()
    [2, 1, 0, 1, 2, 3]
    """
    if size == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (size - 1)
    index = (np.arange(start, stop) - halo) % period
    return np.where(index < size, index, period - index).astype(np.intp)
