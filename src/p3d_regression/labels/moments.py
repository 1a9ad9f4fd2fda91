"""Mean, variance and range of numbers that come in blocks, with a weight for each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Share of values that are the smallest or the largest one, from which the next one is looked for.
_MANY = 0.005


@dataclass(frozen=True)
class Weights:
    """How often each voxel of a block counts: the product of a number for its plane, its row, and its column.

    Patches that overlap show the same voxel to the loss several times.
    """

    z: Array
    y: Array
    x: Array

    @classmethod
    def ones(cls, shape: Sequence[int]) -> "Weights":
        return cls(*(np.ones(n) for n in shape))

    @cached_property
    def total(self) -> float:
        return float(self.z.sum() * self.y.sum() * self.x.sum())

    @cached_property
    def dense(self) -> Array | None:
        """The weight of each voxel; None where all are 1."""
        if all((axis == 1).all() for axis in (self.z, self.y, self.x)):
            return None
        dense: Array = self.z[:, None, None] * self.y[:, None] * self.x
        return dense

    def sum(self, values: Array) -> float:
        """The weighted sum of float64 values of shape (D, H, W)."""
        return float(self.z @ ((values @ self.x) @ self.y))


@dataclass(frozen=True)
class Block:
    """Labels of one channel.

    Attributes:
        values: shape (D, H, W), in the units of the labels.
        weights: how often each of them counts.
    """

    values: Array
    weights: Weights

    @cached_property
    def low(self) -> float:
        """The smallest value; NaN if there is one."""
        return float(self.values.min())

    @cached_property
    def high(self) -> float:
        return float(self.values.max())

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def only(self, counts: Array) -> "Block | None":
        """The part of it that counts, in a row; None if that is nothing.

        Args:
            counts: of bool, shape (D, H, W).
        """
        values = self.values[counts]
        if not values.size:
            return None
        dense = np.ones(values.size) if self.weights.dense is None else self.weights.dense[counts]
        return Block(values[None, None], Weights(np.ones(1), np.ones(1), dense))

    @cached_property
    def doubles(self) -> Array:
        """The values as float64."""
        return self.values.astype(np.float64)


@dataclass
class Moments:
    """Count, mean, variance and range of values, merged from parts.

    After Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 37 (1983).

    Attributes:
        count: of all values; those that are NaN or infinite count here and in ``nan`` and ``inf`` only.
        mean: of the finite ones, like all that follows.
        m2: sum of squared deviations from the mean.
        at_low, at_high: how many are exactly the smallest or the largest one.
        second_low, second_high: the next ones where many are; elsewhere the same as these.
    """

    count: float = 0.0
    mean: float = math.nan
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    nan: float = 0.0
    inf: float = 0.0
    at_low: float = 0.0
    at_high: float = 0.0
    second_low: float = math.inf
    second_high: float = -math.inf

    @classmethod
    def of(cls, block: Block) -> "Moments":
        if not block.is_finite:
            return cls._of_finite_part(block)
        n, values = block.weights.total, block.doubles
        mean = block.weights.sum(values) / n
        deviations = values - mean
        # what is subtracted is zero but for rounding
        rest = block.weights.sum(deviations)
        m2 = block.weights.sum(deviations * deviations) - rest * rest / n
        return cls(n, mean, max(m2, 0.0), block.low, block.high)._with_ends(block)

    def _with_ends(self, block: Block) -> "Moments":
        """Count the values at the ends, which are looked at where they are many: a fill value, or what was clipped."""
        for end, toward in (("low", np.min), ("high", np.max)):
            bound = getattr(self, end)
            is_bound = block.values == bound
            dense = block.weights.dense
            here = float(np.count_nonzero(is_bound) if dense is None else dense[is_bound].sum())
            setattr(self, f"at_{end}", here)
            setattr(self, f"second_{end}", bound)
            if here >= _MANY * self.finite and not is_bound.all():
                others = block.values[~is_bound & np.isfinite(block.values)]
                if others.size:
                    setattr(self, f"second_{end}", float(toward(others)))
        return self

    @classmethod
    def _of_finite_part(cls, block: Block) -> "Moments":
        values, weights = block.doubles, block.weights
        good = np.isfinite(values)
        nan = weights.sum(np.isnan(values).astype(np.float64))
        found = cls(weights.total, nan=nan, inf=weights.sum((~good).astype(np.float64)) - nan)
        if good.any():
            n = weights.sum(good.astype(np.float64))
            found.mean = weights.sum(np.where(good, values, 0.0)) / n
            found.m2 = weights.sum(np.where(good, values - found.mean, 0.0) ** 2)
            found.low, found.high = float(values[good].min()), float(values[good].max())
            found._with_ends(block)
        return found

    @property
    def finite(self) -> float:
        """How many values are neither NaN nor infinite."""
        return self.count - self.nan - self.inf

    @property
    def variance(self) -> float:
        return self.m2 / self.finite if self.finite else math.nan

    @property
    def std(self) -> float:
        """The standard deviation of all these values, not an estimate from a sample."""
        return math.sqrt(self.variance) if self.finite else math.nan

    def merge(self, other: "Moments") -> None:
        ours, theirs = self.finite, other.finite
        if theirs:
            n = ours + theirs
            difference = other.mean - self.mean if ours else 0.0
            self.mean = self.mean + difference * theirs / n if ours else other.mean
            self.m2 += other.m2 + difference * difference * ours * theirs / n
            self._merge_ends(other)
        self.count += other.count
        self.nan += other.nan
        self.inf += other.inf

    def _merge_ends(self, other: "Moments") -> None:
        # without the infinities of one that holds nothing yet
        lows = sorted(filter(math.isfinite, {self.low, self.second_low, other.low, other.second_low}))
        highs = sorted(filter(math.isfinite, {self.high, self.second_high, other.high, other.second_high}))
        low, high = lows[0], highs[-1]
        self.at_low = sum(part.at_low for part in (self, other) if part.low == low)
        self.at_high = sum(part.at_high for part in (self, other) if part.high == high)
        self.low, self.high = low, high
        self.second_low = lows[1] if len(lows) > 1 else low
        self.second_high = highs[-2] if len(highs) > 1 else high
