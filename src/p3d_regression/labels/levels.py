"""What some patches tell that no voxel tells alone: levels, directions, and what transforms make of values."""

from dataclasses import dataclass, field

import numpy as np

from p3d_regression.labels.moments import Array

#: Patches that are looked at; more would not say more.
MOST_PATCHES = 64


@dataclass
class Levels:
    """Patches of one channel, each with the mean of its raw values and the mean and variance of its labels.

    Attributes:
        stored: mean and standard deviation of the raw values of the file.
        seen: the same, as the network is given them.
        label: means.
        within: variances of the labels of a patch.
    """

    stored: list[tuple[float, float]] = field(default_factory=list)
    seen: list[tuple[float, float]] = field(default_factory=list)
    label: list[float] = field(default_factory=list)
    within: list[float] = field(default_factory=list)

    def add(self, stored: Array, seen: Array, label: Array) -> None:
        """Take in a patch; one with values that are not finite says nothing."""
        values = [part.astype(np.float64) for part in (stored, seen, label)]
        if all(np.isfinite(part).all() for part in values):
            self.stored.append((float(values[0].mean()), float(values[0].std())))
            self.seen.append((float(values[1].mean()), float(values[1].std())))
            self.label.append(float(values[2].mean()))
            self.within.append(float(values[2].var()))

    @property
    def share(self) -> float:
        """Of the variance of the labels, what lies between patches and not within them; 0 for few patches."""
        between, within = float(np.var(self.label)) if self.label else 0.0, float(np.mean(self.within or [0.0]))
        return between / (between + within) if len(self.label) >= _LEAST_PATCHES and between > 0 else 0.0

    @property
    def explained(self) -> float:
        """Of the variance between patches, what mean and spread of the raw values of the file explain."""
        return _explained(self.stored, self.label)

    @property
    def left_by_transforms(self) -> float:
        """The same of the raw values that the network is given."""
        return _explained(self.seen, self.label)


#: Two numbers explain fewer patches by chance.
_LEAST_PATCHES = 4


def _explained(raw: list[tuple[float, float]], label: list[float]) -> float:
    if len(raw) < _LEAST_PATCHES or np.ptp(label) == 0:
        return 0.0
    means, stds = np.array(raw).T
    # with few patches the mean alone: of two numbers, one would fit by chance
    columns = [means] if len(raw) < 5 * _LEAST_PATCHES else [means, stds]
    columns = [column - column.mean() for column in columns if np.ptp(column) > 1e-6 * (np.abs(column).max() or 1)]
    if not columns:
        return 0.0
    wanted = np.array(label) - np.mean(label)
    found = np.linalg.lstsq(np.stack(columns, 1), wanted, rcond=None)[0]
    return 1 - float(np.var(wanted - np.stack(columns, 1) @ found) / np.var(wanted))


@dataclass
class Directions:
    """Labels of several channels: whether they are vectors of length 1, or 0 where there is none."""

    voxels: int = 0
    units: int = 0
    zeros: int = 0

    def add(self, label: Array) -> None:
        """Take in a patch."""
        if label.ndim == 4 and label.shape[0] > 1:
            lengths = np.linalg.norm(label.astype(np.float64), axis=0)
            self.voxels += lengths.size
            self.units += int(np.count_nonzero(np.abs(lengths - 1) < 0.01))
            self.zeros += int(np.count_nonzero(lengths == 0))

    @property
    def are_units(self) -> bool:
        return self.units > 0 and self.units >= 0.9 * (self.voxels - self.zeros)


@dataclass
class Bound:
    """The voxels that have the largest transformed value.

    Attributes:
        value: that value.
        low, high: the smallest and the largest value that these voxels have in the file.
        count: how many there are.
    """

    value: float = -np.inf
    low: float = np.inf
    high: float = -np.inf
    count: int = 0

    def add(self, stored: Array, seen: Array) -> None:
        """Take in values of the file, and what transforms have made of them; both in a row, all finite."""
        value = float(seen.max())
        if value > self.value:
            self.value, self.low, self.high, self.count = value, np.inf, -np.inf, 0
        if value == self.value:
            here = stored[seen == value]
            self.low, self.high = min(self.low, float(here.min())), max(self.high, float(here.max()))
            self.count += here.size


@dataclass
class Clipping:
    """How many labels lie outside of the bounds that a transform has cut them to."""

    voxels: int = 0
    above: Bound = field(default_factory=Bound)
    below: Bound = field(default_factory=Bound)
    low: float = np.inf
    high: float = -np.inf

    def add(self, stored: Array, seen: Array) -> None:
        """Take in the labels of a patch, of the file and transformed voxel by voxel."""
        if stored.size != seen.size:
            return
        stored, values = stored.ravel().astype(np.float64), seen.ravel().astype(np.float64)
        good = np.isfinite(stored) & np.isfinite(values)
        if not good.any():
            return
        stored, values = stored[good], values[good]
        self.voxels += stored.size
        self.low, self.high = min(self.low, float(stored.min())), max(self.high, float(stored.max()))
        self.above.add(stored, values)
        self.below.add(stored, -values)

    @property
    def share(self) -> float:
        """Of the labels, those that became equal at a bound though they are not."""
        spread = self.high - self.low
        cut = sum(bound.count for bound in (self.above, self.below) if bound.high - bound.low > 1e-6 * spread)
        return cut / self.voxels if self.voxels and spread > 0 else 0.0
