"""How far the level of the labels of a patch follows the level of its raw values."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from p3d_regression.labels.moments import Array

#: Patches that are looked at; more would not say more.
MOST_PATCHES = 64


@dataclass
class Levels:
    """Patches of one channel, each with the mean of its raw values and the mean and variance of its labels.

    Attributes:
        raw, label: means, in the units of the files.
        within: variances of the labels of a patch.
    """

    raw: list[float] = field(default_factory=list)
    label: list[float] = field(default_factory=list)
    within: list[float] = field(default_factory=list)

    def add(self, raw: Array, label: Array) -> None:
        """Take in a patch; one with values that are not finite says nothing."""
        values = raw.astype(np.float64), label.astype(np.float64)
        if all(np.isfinite(part).all() for part in values):
            self.raw.append(float(values[0].mean()))
            self.label.append(float(values[1].mean()))
            self.within.append(float(values[1].var()))

    @property
    def share(self) -> float:
        """Of the variance of the labels, what lies between patches and not within them; 0 for few patches."""
        between, within = float(np.var(self.label)) if self.label else 0.0, float(np.mean(self.within or [0.0]))
        return between / (between + within) if len(self.label) >= 4 and between > 0 else 0.0

    @property
    def explained(self) -> float:
        """Of the variance between patches, what a line through the means of the raw patches explains."""
        if len(self.raw) < 4 or np.ptp(self.raw) == 0 or np.ptp(self.label) == 0:
            return 0.0
        return float(np.corrcoef(self.raw, self.label)[0, 1] ** 2)


def levels_of(patches: Sequence[Callable[[], Iterable[Array]]]) -> Levels:
    """Look at some patches, evenly spread over all of them.

    Args:
        patches: each returns raw values and labels of one patch.
    """
    found = Levels()
    for index in np.unique(np.linspace(0, len(patches) - 1, min(len(patches), MOST_PATCHES)).astype(int)):
        raw, label = patches[index]()
        found.add(raw, label)
    return found
