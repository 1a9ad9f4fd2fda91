"""Overlapping patches as one volume, in a window that moves along Z, so that memory stays flat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from p3d_regression.prediction.spec import Blend

Array = npt.NDArray[np.float32]

#: Width of the Gaussian, relative to a patch, and the smallest weight: as in MONAI's ``compute_importance_map``.
_SIGMA, _LEAST = 0.125, 1e-3

#: Planes that are finished and written to an HDF5 file at once.
PLANES = 16

#: Where a patch lies in the volume: slices for Z, Y and X.
Place = tuple[slice, slice, slice]


def importance_map(shape: Sequence[int], blend: Blend) -> Array:
    """The weight of each voxel of a patch.

    Source: ``monai.data.utils.compute_importance_map`` with ``sigma_scale=0.125``.

    Args:
        shape: (D, H, W).
        blend: ``gaussian``, whose weights fall from the middle of the patch to its border; else all are 1.

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
    """The layers of planes of a volume, or of a box in it, that are being blended.

    Args:
        channels: of the output.
        places: of all patches, in the order in which they come, seen from the corner of the box; they may reach beyond.
        shape: of the box, (D, H, W).
        blend: how overlapping patches are weighted.
        write: called with the number of each layer that no patch reaches any more, with the weighted sum of its
            patches, shape (C, planes, H, W), and the sum of their weights, shape (planes, H, W).
        planes: of a layer.
        finished: layers that were written before.
        skipped: patches that lie in these layers, and do not come.
    """

    channels: int
    places: Sequence[Place]
    shape: tuple[int, ...]
    blend: Blend
    write: Callable[[int, Array, Array], None]
    planes: int = PLANES
    finished: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        # below which plane no patch from this one on reaches
        starts = [place[0].start for place in self.places]
        self._below = [*np.minimum.accumulate(starts[::-1])[::-1].tolist(), self.shape[0]]
        self._maps: dict[tuple[int, ...], Array] = {}
        self._layers: dict[int, tuple[Array, Array]] = {}
        self._added, self._next = self.skipped, self.finished

    def add(self, patch: Array) -> None:
        """Take in the next patch, of shape (C, D, H, W)."""
        place = self.places[self._added]
        (y, from_y), (x, from_x) = (_common(part, 0, n) for part, n in zip(place[1:], self.shape[1:], strict=True))
        size = patch.shape[1:]
        if size not in self._maps:
            self._maps[size] = importance_map(size, self.blend)
        weights = self._maps[size][:, from_y, from_x]
        weighted = weights * patch[..., from_y, from_x]
        end = min(place[0].stop, self.shape[0])
        for layer in range(max(self._next, place[0].start // self.planes), -(-end // self.planes)):
            if layer not in self._layers:
                self._layers[layer] = self._empty(layer)
            total, weight = self._layers[layer]
            into, part = _common(place[0], layer * self.planes, len(weight))
            if self.blend == "none":
                total[:, into, y, x], weight[into, y, x] = weighted[:, part], 1
                continue
            total[:, into, y, x] += weighted[:, part]
            weight[into, y, x] += weights[part]
        self._added += 1
        done = self._below[self._added]
        while self._next * self.planes < self.shape[0] and min((self._next + 1) * self.planes, self.shape[0]) <= done:
            self.write(self._next, *self._layers.pop(self._next))
            self._next += 1

    def _empty(self, layer: int) -> tuple[Array, Array]:
        planes = min(self.planes, self.shape[0] - layer * self.planes)
        shape = (planes, *self.shape[1:])
        return np.zeros((self.channels, *shape), np.float32), np.zeros(shape, np.float32)


def _common(part: slice, first: int, size: int) -> tuple[slice, slice]:
    """What a part of an axis shares with ``size`` voxels from ``first`` on, seen from there and from the part."""
    low, high = max(part.start, first), min(part.stop, first + size)
    return slice(low - first, high - first), slice(low - part.start, high - part.start)


def first_needed(places: Sequence[Place], planes: int) -> int:
    """The first patch that reaches beyond so many planes."""
    return next(i for i, place in enumerate(places) if place[0].stop > planes)
