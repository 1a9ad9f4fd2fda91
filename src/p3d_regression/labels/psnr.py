"""The largest value that pytorch-3dunet's PSNR can reach on given labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from p3d_regression.interval import Interval
from p3d_regression.labels.floor import Bound, distance_to
from p3d_regression.labels.moments import Block, Moments


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
    """Follows pytorch-3dunet's PSNR through the labels: 10 log10(R^2 / MSE) of each batch, averaged over them.

    R is what it takes for the range of the labels, batch by batch: 2, or 1 where none of them is negative. Labels
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
            distance = distance_to(block.doubles, self._ranges[channel])
            batch.shortfall += block.weights.sum(distance * distance)

    def end_patch(self) -> None:
        if not self._ended:
            self._batches[-1].patches += 1
            self._ended = True

    @property
    def batches_with_negative_labels(self) -> tuple[int, int]:
        """How many batches R = 2 is taken for, and how many there are; of patches, where they are shuffled."""
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
