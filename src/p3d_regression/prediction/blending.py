"""Overlapping patches as one volume, in a window that moves along Z, so that memory stays flat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from p3d_regression.prediction.spec import Blend

Array = npt.NDArray[np.float32]

#: Width of the Gaussian, relative to a patch, and the smallest weight: as in MONAI's ``compute_importance_map``.
_SIGMA, _LEAST = 0.125, 1e-3

#: Where a patch lies in the volume: slices for Z, Y and X.
Place = tuple[slice, slice, slice]


def importance_map(shape: Sequence[int], blend: Blend) -> Array:
    """The weight of each voxel of a patch.

    Source: ``monai.data.utils.compute_importance_map`` with ``sigma_scale=0.125``.

    Args:
        shape: (D, H, W).
        blend: ``gaussian``, whose weights fall from the middle of the patch to its border, or ``mean``.

    Returns:
        Shape (D, H, W), above 0.
    """
    weights = np.ones(tuple(shape))
    if blend == "gaussian":
        for axis, n in enumerate(shape):
            distance = np.arange(n) - (n - 1) / 2
            one = np.exp(-(distance**2) / (2 * (_SIGMA * n) ** 2))
            weights = weights * one.reshape([-1 if i == axis else 1 for i in range(3)])
        weights = weights.clip(min=max(float(weights.min()), _LEAST))
    return weights.astype(np.float32)


def uncovered(places: Sequence[Place], shape: Sequence[int]) -> str | None:
    """The first axis along which patches leave a gap, and where; None if they leave none."""
    for axis, (name, n) in enumerate(zip("ZYX", shape, strict=True)):
        spans = sorted({(place[axis].start, place[axis].stop) for place in places})
        ends = np.maximum.accumulate([0, *(stop for _, stop in spans)])
        for (start, _), reached in zip([*spans, (n, n)], ends, strict=True):
            if start > reached:
                return f"{name}, voxels {reached} to {start - 1}"
    return None


@dataclass
class Window:
    """The planes of a volume that are being blended.

    Args:
        channels: of the output.
        places: of all patches, in the order in which they come.
        shape: of the volume, (D, H, W).
        blend: how overlapping patches are weighted.
        planes: in multiples of which finished planes are written.
        write: called with the number of the first plane and finished ones, shape (C, planes, H, W).
    """

    channels: int
    places: Sequence[Place]
    shape: tuple[int, ...]
    blend: Blend
    planes: int
    write: Callable[[int, Array], None]

    def __post_init__(self) -> None:
        # below which plane no patch from this one on reaches
        starts = [place[0].start for place in self.places]
        self._below = [*np.minimum.accumulate(starts[::-1])[::-1].tolist(), self.shape[0]]
        self._maps: dict[tuple[int, ...], Array] = {}
        self._first, self._added = 0, 0
        self._sum = np.zeros((self.channels, 0, *self.shape[1:]), np.float32)
        self._weight = np.zeros((0, *self.shape[1:]), np.float32)

    def add(self, patch: Array) -> None:
        """Take in the next patch, of shape (C, D, H, W)."""
        z, y, x = self.places[self._added]
        size = patch.shape[1:]
        weights = self._maps.setdefault(size, importance_map(size, self.blend))
        self._reserve(z.stop)
        inside = (slice(z.start - self._first, z.stop - self._first), y, x)
        self._sum[(slice(None), *inside)] += weights * patch
        self._weight[inside] += weights
        self._added += 1
        done = self._below[self._added]
        self._leave(done if done == self.shape[0] else done // self.planes * self.planes)

    def _reserve(self, stop: int) -> None:
        """Have room for the planes below one."""
        missing = stop - self._first - self._weight.shape[0]
        if missing > 0:
            more = np.zeros((self.channels, missing, *self.shape[1:]), np.float32)
            self._sum = np.concatenate([self._sum, more], axis=1)
            self._weight = np.concatenate([self._weight, more[0]])

    def _leave(self, stop: int) -> None:
        """Write the planes below one, which no patch reaches any more."""
        while self._first < stop:
            count = min(self.planes, stop - self._first)
            self.write(self._first, self._sum[:, :count] / self._weight[:count])
            self._sum, self._weight = self._sum[:, count:], self._weight[count:]
            self._first += count


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
