"""The smallest value that a loss or a metric can reach on given labels, if the model's output has a given range.

Each of these losses is a mean over voxels of a function of the distance between output and label that grows with it. So
the best that an output inside an interval can do is, voxel by voxel, the point of the interval next to the label: the
floor is exact, and needs only one look at each label.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from p3d_regression.activations.ranges import Interval
from p3d_regression.labels import Array, Block, Moments


@dataclass(frozen=True)
class VoxelLoss:
    """A loss that is the mean over voxels of a function of the distance between output and label.

    Attributes:
        of_distance: from distances, at least 0, to losses; grows with the distance.
        factor: from labels to what a voxel's loss is multiplied with; None for 1.
        ignored: label whose voxels have loss 0, but count in the mean: upstream's ``ignore_index``.
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


def squared(ignored: float | None = None) -> VoxelLoss:
    """The mean squared error."""
    return VoxelLoss(np.square, ignored=ignored, is_squared=True)


def loss_of(module: Any, ignored: float | None = None) -> VoxelLoss | None:
    """Return the loss that a module computes, with the options it was built with; None if it is none of these.

    Args:
        module: an instance of ``MSELoss``, ``L1Loss``, ``SmoothL1Loss`` or ``HuberLoss`` of ``torch.nn``, or of
            upstream's ``WeightedSmoothL1Loss``.
        ignored: as in :class:`VoxelLoss`.
    """
    match type(module).__name__:
        case "MSELoss":
            return squared(ignored)
        case "L1Loss":
            return VoxelLoss(np.abs, ignored=ignored)
        case "SmoothL1Loss":
            return VoxelLoss(_smooth_l1(module.beta), ignored=ignored)
        case "HuberLoss":
            return VoxelLoss(_huber(module.delta), ignored=ignored)
        case "WeightedSmoothL1Loss":
            return VoxelLoss(_smooth_l1(module.beta), _upstreams_weights(module), ignored)
    return None


def _smooth_l1(beta: float) -> Callable[[Array], Array]:
    if beta == 0:
        return np.abs
    return lambda d: np.where(d < beta, 0.5 * d * d / beta, d - 0.5 * beta)


def _huber(delta: float) -> Callable[[Array], Array]:
    return lambda d: np.where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta))


def _upstreams_weights(module: Any) -> Callable[[Array], Array]:
    threshold, weight, below = module.threshold, module.weight, module.apply_below_threshold
    return lambda y: np.where((y < threshold) == bool(below), weight, 1.0)


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
    sketch: "Sketch | None" = None


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
        losses = self._loss.of_distance(_distance(block.doubles, self._ranges[channel]))
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
        constants = [
            kept.counted.m2 if kept.sketch is None else kept.sketch.least(self._loss) for kept in self._channels
        ]
        return Bound(
            floor=_finite(sum(kept.shortfall for kept in self._channels) / n),
            constant=_finite(sum(constants) / n),
            per_channel=tuple(kept.shortfall / kept.seen.count for kept in self._channels),
        )


def _finite(value: float) -> float | None:
    """None where numbers have become too large to be told."""
    return value if math.isfinite(value) else None


def _distance(values: Array, interval: Interval) -> Array:
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


@dataclass
class _Batch:
    """What was seen of a batch.

    Attributes:
        channels: moments of each.
        shortfall: sum of the squared distances to the range, of all channels.
        patches: how many.
    """

    channels: list[Moments] = field(default_factory=list)
    shortfall: float = 0.0
    patches: int = 0


class PsnrLimit:
    """Follows upstream's PSNR through the labels: 10 log10(R^2 / MSE) of each batch, averaged over them.

    R is what upstream takes for the range of the labels, batch by batch: 2, or 1 where none of them is negative. Labels
    outside -1..1 crash it.

    Args:
        ranges: of the output, per channel.
        batch_size: of the loader.
        in_order: whether batches are made of consecutive patches, as in validation. Where they are shuffled, patches
            are taken one by one: an average over them is not less than one over batches, whichever these are.
    """

    by_patch = True

    def __init__(self, ranges: Sequence[Interval], batch_size: int, *, in_order: bool = True) -> None:
        self._ranges = ranges
        self._mixes = batch_size > 1 and not in_order
        self._batch_size = batch_size if in_order else 1
        self._batches: list[_Batch] = []
        self._channels: list[Moments] = []
        self._ended = True

    def add(self, channel: int, block: Block, moments: Moments) -> None:
        if channel >= len(self._ranges):
            return
        if self._ended:
            if not self._batches or self._batches[-1].patches == self._batch_size:
                self._batches.append(_Batch())
            self._ended = False
        batch = self._batches[-1]
        for kept in (self._channels, batch.channels):
            if channel == len(kept):
                kept.append(Moments())
            kept[channel].merge(moments)
        if block.is_finite:
            distance = _distance(block.doubles, self._ranges[channel])
            batch.shortfall += block.weights.sum(distance * distance)

    def end_patch(self) -> None:
        if not self._ended:
            self._batches[-1].patches += 1
            self._ended = True

    @property
    def batches_with_negative_labels(self) -> tuple[int, int]:
        """How many batches upstream takes R = 2 for, and how many there are; of patches, where they are shuffled."""
        return sum(_low(batch) < 0 for batch in self._batches), len(self._batches)

    def bound(self) -> Bound:
        if not self._batches or any(m.nan or m.inf or m.low < -1 or m.high > 1 for m in self._channels):
            return Bound(None, None, higher_is_better=True)
        means = [moments.mean for moments in self._channels]
        widest = 2.0 if self._mixes and any(_low(batch) < 0 for batch in self._batches) else 1.0
        ceilings, constants = [], []
        for batch in self._batches:
            span = max(widest, 2.0 if _low(batch) < 0 else 1.0)
            pairs = zip(batch.channels, means, strict=True)
            squares = math.fsum(m.m2 + m.count * (m.mean - mean) ** 2 for m, mean in pairs)
            n = sum(moments.count for moments in batch.channels)
            ceilings.append(_psnr(span, batch.shortfall / n))
            constants.append(_psnr(span, squares / n))
        patches = [batch.patches for batch in self._batches]
        return Bound(_mean(ceilings, patches), _mean(constants, patches), higher_is_better=True)


def _low(batch: _Batch) -> float:
    return min(moments.low for moments in batch.channels)


def _psnr(span: float, mse: float) -> float:
    return 10 * math.log10(span**2 / mse) if mse > 0 else math.inf


def _mean(values: list[float], weights: list[int]) -> float | None:
    total = sum(weights)
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / total if total else math.nan
    return mean if math.isfinite(mean) else None


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

    def least(self, loss: VoxelLoss) -> float:
        """The sum of the losses of the best constant."""
        from scipy.optimize import minimize_scalar

        (used,) = np.nonzero(self._counts)
        binned = (self._middle or 0.0) + self._sums[used] / self._counts[used]
        values = np.concatenate([binned, list(self._constants)])
        counts = np.concatenate([self._counts[used], list(self._constants.values())])
        if not counts.sum():
            return 0.0

        def total(constant: float) -> float:
            return float((counts * loss.of_distance(np.abs(values - constant))).sum())

        # a minimum of an absolute value is at one of the values, the median; between them scipy searches
        low, high, order = float(values.min()), float(values.max()), np.argsort(values)
        median = float(values[order][np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)])
        found = minimize_scalar(total, bounds=(low, high), method="bounded", options={"xatol": 1e-9 * (high - low)})
        return min(float(found.fun), total(median))
