"""The constant with the smallest loss on given labels."""

from collections.abc import Callable

import numpy as np

from p3d_regression.labels.moments import Array, Block


class Sketch:
    """Which values there are, to find the best constant for a loss that is not squared.

    A histogram over the upper bits of float32 numbers, taken of the distances to a value in the midst of the others:
    bins are a thousandth of that distance wide, finest where the constant will be. A bin keeps its count and its sum,
    so that what is lost is the spread within a bin."""

    _SHIFT = 14

    def __init__(self) -> None:
        bins = 2 ** (32 - self._SHIFT)
        self._counts = np.zeros(bins)
        self._sums = np.zeros(bins)
        self._middle: float | None = None
        # background is often one value, in block after block
        self._constants: dict[float, float] = {}

    def add(self, block: Block, dense: Array | None) -> None:
        """Take in the values of a block, with the weight of each if they differ."""
        if block.low == block.high:
            weight = block.weights.total if dense is None else float(dense.sum())
            self._constants[block.low] = self._constants.get(block.low, 0.0) + weight
            return
        if self._middle is None:
            self._middle = float(np.median(block.doubles))
        flat = block.doubles.ravel() - self._middle
        weights = None if dense is None else dense.ravel()
        keys = self._keys(flat.astype(np.float32))
        self._counts += np.bincount(keys, weights, len(self._counts))
        self._sums += np.bincount(keys, flat if weights is None else flat * weights, len(self._sums))

    def _keys(self, values: Array) -> Array:
        """Bins, in the order of the values. Works as radix sorts of floats do: negative ones run backwards."""
        bits = values.view(np.uint32)
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))
        keys: Array = (ordered >> np.uint32(self._SHIFT)).astype(np.intp)
        return keys

    def least(self, loss: Callable[[Array], Array]) -> float:
        """The sum of the losses of the best constant.

        Args:
            loss: from distances to losses.
        """
        from scipy.optimize import minimize_scalar

        (used,) = np.nonzero(self._counts)
        binned = (self._middle or 0.0) + self._sums[used] / self._counts[used]
        values = np.concatenate([binned, list(self._constants)])
        counts = np.concatenate([self._counts[used], list(self._constants.values())])
        if not counts.sum():
            return 0.0

        def total(constant: float) -> float:
            return float((counts * loss(np.abs(values - constant))).sum())

        # a minimum of an absolute value is at one of the values, the median; between them scipy searches
        low, high, order = float(values.min()), float(values.max()), np.argsort(values)
        median = float(values[order][np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)])
        found = minimize_scalar(total, bounds=(low, high), method="bounded", options={"xatol": 1e-9 * (high - low)})
        return min(float(found.fun), total(median))
