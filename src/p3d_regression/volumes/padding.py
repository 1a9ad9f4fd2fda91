"""A part of a volume that is padded with its mirror image, of which only this part is read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def padded_part(dataset: Any, place: Sequence[slice], halo: Sequence[int]) -> npt.NDArray[Any]:
    """A part of a padded volume.

    Args:
        dataset: of shape (D, H, W) or (C, D, H, W).
        place: of the part in the padded volume; for Z, Y and X, with or without a slice for the channels before.
        halo: by which the volume is padded on both sides, for Z, Y and X.

    Returns:
        With all channels.
    """
    z, y, x = indices(place, halo, dataset.shape[-3:])
    block = np.asarray(dataset[(..., *(slice(int(i.min()), int(i.max()) + 1) for i in (z, y, x)))])
    return block[..., (z - z.min())[:, None, None], (y - y.min())[None, :, None], (x - x.min())[None, None, :]]


def indices(place: Sequence[slice], halo: Sequence[int], shape: Sequence[int]) -> list[npt.NDArray[np.intp]]:
    """For each axis the indices of a part of a padded volume, see :func:`mirrored`."""
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
