"""Where the errors of a volume are: plane by plane, part by part, and at the borders of patches."""

import numpy as np

from p3d_regression.evaluation.pairs import Pair
from p3d_regression.evaluation.statistics import Array


class Where:
    """Errors by plane, by part of the size of a patch, and at the borders of patches."""

    def __init__(self, pair: Pair) -> None:
        held, shape = pair.prediction.attributes, pair.truth.spatial
        self._patch = [int(n) for n in held.get("patch_shape", (16, 64, 64))]
        self._stride = [int(n) for n in held.get("stride_shape", self._patch)] if "patch_shape" in held else None
        self._shape = shape
        self._absolute, self._count = np.zeros(shape[0]), np.zeros(shape[0])
        grid = [-(-n // p) for n, p in zip(shape, self._patch, strict=True)]
        self._squares, self._voxels = np.zeros(grid), np.zeros(grid)
        self._steps = [np.zeros(n - 1) for n in shape]
        self._pairs = [np.zeros(n - 1) for n in shape]
        self._last: Array | None = None

    def add(self, first: int, errors: Array) -> None:
        """Take in planes of errors, shape (C, planes, H, W); NaN where a voxel does not count."""
        good = ~np.isnan(errors)
        absolute = np.where(good, np.abs(errors), 0)
        planes = slice(first, first + errors.shape[1])
        self._absolute[planes] += absolute.sum((0, 2, 3))
        self._count[planes] += good.sum((0, 2, 3))
        self._blocks(first, absolute * absolute, good)
        self._add_steps(first, errors)

    def _blocks(self, first: int, squares: Array, good: Array) -> None:
        _, y, x = self._patch
        rows = np.arange(0, squares.shape[2], y)
        columns = np.arange(0, squares.shape[3], x)
        for values, into in ((squares, self._squares), (good.astype(np.float64), self._voxels)):
            parts = np.add.reduceat(np.add.reduceat(values.sum(0), rows, 1), columns, 2)
            for plane, part in enumerate(parts, first):
                into[plane // self._patch[0]] += part

    def _add_steps(self, first: int, errors: Array) -> None:
        if self._stride is None:
            return
        for axis in (1, 2):
            step = np.abs(np.diff(errors, axis=axis + 1))
            others = tuple(i for i in range(4) if i != axis + 1)
            self._steps[axis] += np.nansum(step, others)
            self._pairs[axis] += (~np.isnan(step)).sum(others)
        stacked = errors if self._last is None else np.concatenate([self._last, errors], 1)
        step = np.abs(np.diff(stacked, axis=1))
        start = first - (self._last is not None)
        self._steps[0][start : start + step.shape[1]] += np.nansum(step, (0, 2, 3))
        self._pairs[0][start : start + step.shape[1]] += (~np.isnan(step)).sum((0, 2, 3))
        self._last = errors[:, -1:]

    @property
    def planes(self) -> Array:
        """The mean absolute error of each plane; NaN where no voxel counts."""
        with np.errstate(invalid="ignore"):
            found: Array = self._absolute / self._count
        return found

    def worst(self, most: int = 5) -> list[tuple[float, tuple[int, int, int]]]:
        """The parts of the size of a patch with the largest mean squared error: this, and their corners (Z, Y, X)."""
        with np.errstate(invalid="ignore"):
            mean = np.where(self._voxels > 0, self._squares / self._voxels, -1.0)
        order = np.argsort(mean, axis=None)[::-1][:most]
        found = []
        for index in order:
            z, y, x = (int(i) for i in np.unravel_index(index, mean.shape))
            if mean[z, y, x] >= 0:
                corner = (z * self._patch[0], y * self._patch[1], x * self._patch[2])
                found.append((float(mean[z, y, x]), corner))
        return found

    def seam(self) -> float | None:
        """How much more the error steps at the borders of patches than elsewhere, averaged over the axes with borders.

        None where the patches are not known, or there are no borders.
        """
        if self._stride is None:
            return None
        at, other = [], []
        for axis, (n, patch, stride) in enumerate(zip(self._shape, self._patch, self._stride, strict=True)):
            starts = sorted({*range(0, max(n - patch, 0) + 1, stride), max(n - patch, 0)})
            borders = {start - 1 for start in starts} | {start + patch - 1 for start in starts}
            chosen = np.array([i in borders for i in range(n - 1)], bool)
            with np.errstate(invalid="ignore"):
                step = self._steps[axis] / self._pairs[axis]
            if chosen.any() and not chosen.all():
                pair = [part[np.isfinite(part)] for part in (step[chosen], step[~chosen])]
                if all(part.size for part in pair):
                    at.append(pair[0].mean())
                    other.append(pair[1].mean())
        return float(np.mean(at) / np.mean(other)) if at and np.mean(other) > 0 else None
