"""How far labels are a line of the raw values of the same voxels, gathered patch by patch."""

import math
from dataclasses import dataclass, field

import numpy as np

from p3d_regression.labels.moments import Array


@dataclass
class Pairs:
    """Means, variances and covariance of pairs of numbers, merged from parts.

    After Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 37 (1983).

    Attributes:
        count: of pairs, or the sum of their weights.
        x, y: means.
        xx, yy, xy: sums of products of deviations.
    """

    count: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    @classmethod
    def of(cls, x: Array, y: Array) -> "Pairs":
        """Of two arrays of float64 with the same shape."""
        if not x.size:
            return cls()
        mean_x, mean_y = float(x.mean()), float(y.mean())
        dx, dy = (x - mean_x).ravel(), (y - mean_y).ravel()
        return cls(x.size, mean_x, mean_y, float(dx @ dx), float(dy @ dy), float(dx @ dy))

    def merge(self, other: "Pairs") -> None:
        if not other.count:
            return
        n = self.count + other.count
        dx, dy, shared = other.x - self.x, other.y - self.y, self.count * other.count / n
        self.xx += other.xx + dx * dx * shared
        self.yy += other.yy + dy * dy * shared
        self.xy += other.xy + dx * dy * shared
        self.x += dx * other.count / n
        self.y += dy * other.count / n
        self.count = n

    @property
    def slope(self) -> float:
        """Of the line through the pairs with the least squared error; 0 where all x are one number."""
        return self.xy / self.xx if self.xx > 0 else 0.0

    @property
    def intercept(self) -> float:
        return self.y - self.slope * self.x

    @property
    def explained(self) -> float:
        """Of the variance of y, what that line explains, between 0 and 1."""
        return min(1.0, self.xy * self.xy / (self.xx * self.yy)) if self.xx > 0 and self.yy > 0 else 0.0

    def error(self, intercept: float, slope: float) -> float:
        """The mean squared error of a line."""
        if not self.count:
            return math.nan
        offset = self.y - intercept - slope * self.x
        spread = (self.yy - 2 * slope * self.xy + slope * slope * self.xx) / self.count
        return max(spread, 0.0) + offset * offset


@dataclass
class RawAndLabels:
    """One channel of the labels and one of the raw volume, as the network and the loss see them.

    Attributes:
        voxels: of all voxels that count, raw value and label.
        patches: of each patch, the mean of its raw values and the mean of its labels, by how many of these count.
        within: sum of squared deviations of the labels from the mean of their patch.
        variances: of the raw patches.
        low_raw, low_label: the smallest ones.
    """

    voxels: Pairs = field(default_factory=Pairs)
    patches: Pairs = field(default_factory=Pairs)
    within: float = 0.0
    variances: list[float] = field(default_factory=list)
    low_raw: float = math.inf
    low_label: float = math.inf

    def add(self, raw: Array, label: Array, counts: Array | None = None) -> None:
        """Take in a patch.

        Args:
            raw, label: of the same shape.
            counts: of bool, which voxels count; None for all.
        """
        x, y = raw.astype(np.float64).ravel(), label.astype(np.float64).ravel()
        if not np.isfinite(x).all():
            return  # the network makes NaN of all of it
        good = np.isfinite(y) if counts is None else np.isfinite(y) & counts.ravel()
        if not good.any():
            return
        part = Pairs.of(x[good], y[good])
        self.voxels.merge(part)
        # the network takes mean and spread of all voxels
        self.patches.merge(Pairs(part.count, float(x.mean()), part.y))
        self.within += part.yy
        self.variances.append(float(x.var()))
        self.low_raw = min(self.low_raw, float(x.min()))
        self.low_label = min(self.low_label, float(y[good].min()))

    @property
    def spread(self) -> float:
        """The root mean square of the standard deviations of the raw patches."""
        return math.sqrt(float(np.mean(self.variances))) if self.variances else 0.0

    def left(self, intercept: float, slope: float, *, by_voxel: bool) -> float:
        """The root mean square of what a line leaves, through the raw value of each voxel or the mean of its patch."""
        if by_voxel:
            return math.sqrt(self.voxels.error(intercept, slope))
        return math.sqrt(self.patches.error(intercept, slope) + self.within / max(self.patches.count, 1))
