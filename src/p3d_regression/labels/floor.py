"""The smallest value that a loss or a metric can reach on given labels, if the model's output has a given range.

Each of these losses is a mean over voxels of a function of the distance between output and label that grows with it. So
the best that an output inside an interval can do is, voxel by voxel, the point of the interval next to the label: the
floor is exact, and needs only one look at each label.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from p3d_regression.interval import Interval
from p3d_regression.labels.best_constant import Sketch
from p3d_regression.labels.moments import Array, Block, Moments


@dataclass(frozen=True)
class VoxelLoss:
    """A loss that is the mean over voxels of a function of the distance between output and label.

    Attributes:
        of_distance: from distances, at least 0, to losses; grows with the distance.
        factor: from labels to what a voxel's loss is multiplied with; None for 1.
        ignored: label whose voxels have loss 0, but count in the mean: pytorch-3dunet's ``ignore_index``.
        is_squared: whether ``of_distance`` is the square, whose best constant is the mean.
    """

    of_distance: Callable[[Array], Array]
    factor: Callable[[Array], Array] | None = None
    ignored: float | None = None
    is_squared: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether all voxels count alike."""
        return self.factor is None and self.ignored is None


#: The mean squared and the mean absolute error.
SQUARED = VoxelLoss(np.square, is_squared=True)
ABSOLUTE = VoxelLoss(np.abs)


@dataclass(frozen=True)
class Bound:
    """What can be reached on some labels.

    Attributes:
        floor: the best value of any output inside the range; None if there is none, as with NaN among the labels or
            for a score without limit.
        constant: the value of the best constant output, one number per channel, whatever the range.
        per_channel: the floor of each channel.
        higher_is_better: whether ``floor`` is in truth a ceiling.
    """

    floor: float | None
    constant: float | None
    per_channel: tuple[float, ...] = ()
    higher_is_better: bool = False


class Limit(Protocol):
    """A measure that knows in the end what can be reached."""

    by_patch: bool

    def add(self, channel: int, block: Block, moments: Moments) -> None: ...

    def end_patch(self) -> None: ...

    def bound(self) -> Bound: ...


@dataclass
class _Channel:
    seen: Moments = field(default_factory=Moments)
    counted: Moments = field(default_factory=Moments)
    shortfall: float = 0.0
    sketch: Sketch | None = None


class LossLimit:
    """Follows a loss through the labels.

    Args:
        loss: which.
        ranges: what the loss sees can be, per channel.
    """

    by_patch = False

    def __init__(self, loss: VoxelLoss, ranges: Sequence[Interval]) -> None:
        self._loss = loss
        self._ranges = ranges
        self._channels: list[_Channel] = []

    def add(self, channel: int, block: Block, moments: Moments) -> None:
        if channel >= len(self._ranges):
            return  # of a channel that the loss does not see
        if channel == len(self._channels):
            self._channels.append(_Channel(sketch=None if self._loss.is_squared else Sketch()))
        kept = self._channels[channel]
        kept.seen.merge(moments)
        if not block.is_finite:
            return
        weights, dense = block.weights, self._dense(block)
        if self._loss.is_squared:
            kept.counted.merge(moments if dense is None else _weighted(block, dense))
        elif kept.sketch is not None:
            kept.sketch.add(block, block.weights.dense if dense is None else dense)
        if block.low in self._ranges[channel] and block.high in self._ranges[channel]:
            return
        losses = self._loss.of_distance(distance_to(block.doubles, self._ranges[channel]))
        kept.shortfall += weights.sum(losses) if dense is None else float((losses * dense).sum())

    def _dense(self, block: Block) -> Array | None:
        """The weight of each voxel where they differ by more than how often it is seen."""
        if self._loss.is_plain:
            return None
        dense = np.ones_like(block.doubles) if block.weights.dense is None else block.weights.dense.copy()
        # compared as torch does: in the precision of the labels
        if self._loss.factor is not None:
            dense *= self._loss.factor(block.values)
        if self._loss.ignored is not None:
            dense[block.values == block.values.dtype.type(self._loss.ignored)] = 0.0
        return dense

    def end_patch(self) -> None:
        pass

    def bound(self) -> Bound:
        n = sum(kept.seen.count for kept in self._channels)
        if not n or any(kept.seen.nan or kept.seen.inf for kept in self._channels):
            return Bound(None, None)
        of_distance = self._loss.of_distance
        constants = [c.counted.m2 if c.sketch is None else c.sketch.least(of_distance) for c in self._channels]
        return Bound(
            floor=_finite(sum(kept.shortfall for kept in self._channels) / n),
            constant=_finite(sum(constants) / n),
            per_channel=tuple(kept.shortfall / kept.seen.count for kept in self._channels),
        )


def _finite(value: float) -> float | None:
    """None where numbers have become too large to be told."""
    return value if math.isfinite(value) else None


def distance_to(values: Array, interval: Interval) -> Array:
    """From each value to the next one in the interval."""
    # not values - clip(values): an infinite end must not turn into NaN
    distance = np.zeros_like(values)
    if math.isfinite(interval.low):
        np.maximum(distance, interval.low - values, out=distance)
    if math.isfinite(interval.high):
        np.maximum(distance, values - interval.high, out=distance)
    return distance


def _weighted(block: Block, dense: Array) -> Moments:
    n = float(dense.sum())
    if not n:
        return Moments()
    mean = float((block.doubles * dense).sum()) / n
    return Moments(n, mean, float((dense * (block.doubles - mean) ** 2).sum()), block.low, block.high)
