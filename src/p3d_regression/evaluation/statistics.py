"""Exact statistics of predictions and truth, gathered piece by piece, and merged from volumes."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from p3d_regression.labels.linear import Pairs

Array = npt.NDArray[Any]

#: Bits of a float32 that a value is counted by: sign, exponent and 11 of the fraction, so that a quantile is known to
#: 1/4096 of itself.
_BITS = 20


@dataclass
class Quantiles:
    """The distribution of numbers of any size, as counts."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2**_BITS, np.int64))

    def add(self, values: Array) -> None:
        self.counts += np.bincount(_indices(values), minlength=2**_BITS)

    def merge(self, other: "Quantiles") -> None:
        self.counts += other.counts

    def at(self, *shares: float) -> list[float]:
        """The values below which these shares of all numbers are; NaN of none."""
        total = self.counts.cumsum()
        if not total[-1]:
            return [math.nan] * len(shares)
        return [_value(int(np.searchsorted(total, share * total[-1]))) for share in shares]

    def share_below(self, values: Array) -> list[float]:
        """Of all numbers the share that is not above each of these."""
        total = self.counts.cumsum()
        return [float(share) for share in total[_indices(values)] / max(total[-1], 1)]

    def histogram(self, edges: Array) -> Array:
        """How many numbers are between neighbouring edges."""
        (filled,) = np.nonzero(self.counts)
        values = np.array([_value(int(index)) for index in filled])
        return np.histogram(values, edges, weights=self.counts[filled])[0]


def _indices(values: Array) -> Array:
    """Where numbers are counted; in their order, shape (n,)."""
    bits = values.astype(np.float32).ravel().view(np.uint32)
    ordered: Array = np.where(bits >> 31, ~bits, bits | np.uint32(2**31)) >> (32 - _BITS)
    return ordered


def _value(index: int) -> float:
    """The middle of the numbers that are counted together."""
    ordered = (np.uint32(index) << np.uint32(32 - _BITS)) | np.uint32(2 ** (31 - _BITS))
    bits = ordered & np.uint32(2**31 - 1) if ordered >> np.uint32(31) else ~ordered
    return float(np.array([bits], np.uint32).view(np.float32)[0])


@dataclass
class Calibration:
    """How predicted standard deviations compare with the errors.

    Attributes:
        ratios: of the absolute error to the standard deviation.
        log_variance: sum of the logarithms of the variances.
        squares: sum of the squared ratios.
        deviation: sum of the standard deviations.
        count: of voxels.
    """

    ratios: Quantiles = field(default_factory=Quantiles)
    log_variance: float = 0.0
    squares: float = 0.0
    deviation: float = 0.0
    count: int = 0

    def add(self, error: Array, std: Array) -> None:
        """Take in errors and predicted standard deviations, in the units of the labels."""
        ratio = np.abs(error) / np.maximum(std, np.finfo(np.float32).tiny)
        self.ratios.add(ratio)
        self.squares += float((ratio * ratio).sum())
        self.log_variance += float(2 * np.log(np.maximum(std, np.finfo(np.float32).tiny)).sum())
        self.deviation += float(std.sum())
        self.count += error.size

    def merge(self, other: "Calibration") -> None:
        self.ratios.merge(other.ratios)
        for name in ("log_variance", "squares", "deviation", "count"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Channel:
    """One channel of predictions and truth.

    Attributes:
        pairs: prediction (x) and truth (y).
        absolute: sum of the absolute errors.
        errors: prediction minus truth.
        low, high: of the truth.
        raw: raw values (x) and truth (y); without voxels where there is no raw volume, or it is the only channel.
        calibration: of predicted standard deviations; None where there are none.
        similarity: sum of the structural similarity, and of how many voxels.
    """

    pairs: Pairs = field(default_factory=Pairs)
    absolute: float = 0.0
    errors: Quantiles = field(default_factory=Quantiles)
    low: float = math.inf
    high: float = -math.inf
    raw: Pairs = field(default_factory=Pairs)
    calibration: Calibration | None = None
    similarity: tuple[float, int] = (0.0, 0)

    def add(self, prediction: Array, truth: Array, raw: Array | None = None, std: Array | None = None) -> None:
        """Take in voxels: arrays of float64 of shape (n,)."""
        if not truth.size:
            return
        error = prediction - truth
        self.pairs.merge(Pairs.of(prediction, truth))
        self.absolute += float(np.abs(error).sum())
        self.errors.add(error)
        self.low, self.high = min(self.low, float(truth.min())), max(self.high, float(truth.max()))
        if raw is not None:
            self.raw.merge(Pairs.of(raw, truth))
        if std is not None:
            self.calibration = self.calibration or Calibration()
            self.calibration.add(error, std)

    def merge(self, other: "Channel") -> None:
        self.pairs.merge(other.pairs)
        self.absolute += other.absolute
        self.errors.merge(other.errors)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.raw.merge(other.raw)
        if other.calibration is not None:
            self.calibration = self.calibration or Calibration()
            self.calibration.merge(other.calibration)
        pairs = zip(self.similarity, other.similarity, strict=True)
        self.similarity = tuple(a + b for a, b in pairs)  # type: ignore[assignment]
