"""One volume, read once: statistics of its channels, and where its errors are."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from p3d_regression.errors import EvaluationError
from p3d_regression.evaluation.pairs import Pair, Source
from p3d_regression.evaluation.similarity import RADIUS, similarity
from p3d_regression.evaluation.statistics import Array, Channel
from p3d_regression.evaluation.where import Where
from p3d_regression.volumes.opening import opened

#: Planes that are read at once, and those of them that are computed with at once.
_PLANES, _PIECE = 16, 2

#: Voxels that are kept of each volume for pictures.
_SAMPLE = 100_000

#: Called with the number of planes that were read.
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Scope:
    """Which voxels count, and what is computed.

    Attributes:
        border: voxels at each face that do not count.
        ignored: labels that do not count, by ``ignore_index`` of the training; NaN is one of them then.
        ssim: whether the structural similarity is computed.
    """

    border: int = 0
    ignored: float | None = None
    ssim: bool = True


@dataclass
class Slab:
    """Some planes of all that is compared; each array has the shape (C, planes, H, W) or is None."""

    first: int
    prediction: Array
    truth: Array
    raw: Array | None
    spread: Array | None
    counts: Array | None


@dataclass
class Result:
    """What was found in one volume.

    Attributes:
        pair: of it.
        channels: one for each channel of the truth.
        planes: mean absolute error of each plane, over the channels; NaN where no voxel counts.
        worst: the parts of the size of a patch with the largest mean squared error: this and their corners (Z, Y, X).
        seam: the mean step of the error between neighbours on both sides of a patch border, divided by that elsewhere;
            None where the patches are not known or there is one.
        sample: some voxels, shape (n, 2 * channels): predictions, then truth.
    """

    pair: Pair
    channels: list[Channel]
    planes: Array
    worst: list[tuple[float, tuple[int, int, int]]] = field(default_factory=list)
    seam: float | None = None
    sample: Array = field(default_factory=lambda: np.empty((0, 0)))


def ranges_of(pair: Pair, scope: Scope) -> list[float]:
    """The range of the truth, per channel, over the voxels that count: the structural similarity needs it before."""
    low, high = [math.inf] * pair.truth.channels, [-math.inf] * pair.truth.channels
    for slab in slabs(pair, only_truth=True):
        for channel, values in enumerate(slab.truth):
            counts = _counted(pair, scope, slab, channel, values)
            _check_finite(pair.truth, values, counts, slab.first)
            kept = values[counts]
            if kept.size:
                low[channel] = min(low[channel], float(kept.min()))
                high[channel] = max(high[channel], float(kept.max()))
    return [b - a if b > a else 0.0 for a, b in zip(low, high, strict=True)]


def evaluate(pair: Pair, scope: Scope, ranges: list[float], tick: Tick, extra: Any = None) -> Result:
    """Compare a volume with the truth.

    Args:
        pair: of them.
        scope: which voxels count.
        ranges: of the truth in all volumes, per channel, for the structural similarity; 0 where there is none.
        tick: told of each plane.
        extra: takes in predictions, truth and what counts of each piece, if it is given.

    Raises:
        EvaluationError: the prediction or the truth has NaN where it counts, or no voxel counts.
    """
    shape = pair.prediction.spatial
    channels = [Channel() for _ in pair.means]
    where = Where(pair)
    stride = max(1, math.prod(shape) // _SAMPLE)
    sample: list[Array] = []
    has_raw = pair.raw is not None and pair.raw.channels in (1, len(channels))
    stds = {mean: variance for variance, mean in pair.variances.items()}
    with_ssim = scope.ssim and scope.ignored is None and pair.mask is None and not scope.border
    windows = [_Windows(width, flat=shape[0] < 2 * RADIUS + 1) for width in ranges] if with_ssim else []
    for slab in slabs(pair):
        slab_counts = [_counted(pair, scope, slab, index, truth) for index, truth in enumerate(slab.truth)]
        for low in range(0, slab.truth.shape[1], _PIECE):
            part = slice(low, low + _PIECE)
            errors, counted = [], []
            for index, channel in enumerate(channels):
                out = slab.prediction[pair.means[index], part].astype(np.float64)
                truth = slab.truth[index, part].astype(np.float64)
                counts = slab_counts[index][part]
                _check_finite(pair.prediction, out, counts, slab.first + low)
                _check_finite(pair.truth, truth, counts, slab.first + low)
                raw = None
                if has_raw and slab.raw is not None:
                    raw = slab.raw[index if slab.raw.shape[0] > 1 else 0, part].astype(np.float64)[counts]
                std = _std(slab, pair.means[index], stds, part)
                channel.add(out[counts], truth[counts], raw, None if std is None else std[counts])
                errors.append(np.where(counts, out - truth, np.nan))
                counted.append(counts)
                if extra is not None:
                    extra(index, out, truth, counts)
            where.add(slab.first + low, np.stack(errors))
            sample.append(_sampled(slab, pair, part, np.logical_and.reduce(counted), stride))
        for index, window in enumerate(windows):
            window.add(slab.prediction[pair.means[index]], slab.truth[index], channels[index])
        tick(slab.truth.shape[1])
    if not all(channel.pairs.count for channel in channels):
        raise EvaluationError(f"{pair.truth}: no voxel counts: all are masked, or in the border of {scope.border}.")
    return Result(pair, channels, where.planes, where.worst(), where.seam(), np.concatenate(sample))


def slabs(pair: Pair, *, only_truth: bool = False) -> Iterator[Slab]:
    """The planes of all that is compared, some at a time."""
    with ExitStack() as stack:

        def dataset_of(source: Source | None) -> Any:
            if source is None or (only_truth and source not in (pair.truth, pair.mask)):
                return None
            return stack.enter_context(opened(source.path))[source.key]

        sources = [dataset_of(s) for s in (pair.prediction, pair.truth, pair.raw, pair.spread, pair.mask)]
        # whole layers of chunks, so that none is decompressed twice
        chunks = [source.chunks[-3] for source in sources if source is not None and source.chunks]
        step = max([_PLANES, *(chunk for chunk in chunks if chunk <= 4 * _PLANES)])
        step = -(-step // _PIECE) * _PIECE
        for first in range(0, pair.truth.spatial[0], step):
            parts = [None if s is None else _planes(s, first, first + step) for s in sources]
            prediction, truth, raw, spread, mask = parts
            assert truth is not None
            yield Slab(
                first,
                truth if prediction is None else prediction,
                truth,
                raw,
                spread,
                None if mask is None else mask > 0,
            )


def _planes(dataset: Any, first: int, stop: int) -> Array:
    found = np.asarray(dataset[..., first:stop, :, :])
    return found if found.ndim == 4 else found[None]


def _counted(pair: Pair, scope: Scope, slab: Slab, channel: int, truth: Array) -> Array:
    """Which voxels of a channel count, shape (planes, H, W)."""
    counts = np.ones(truth.shape, bool)
    if slab.counts is not None:
        counts &= slab.counts[channel if slab.counts.shape[0] > 1 else 0]
    if scope.ignored is not None:
        counts &= ~np.isnan(truth) if math.isnan(scope.ignored) else truth != scope.ignored
    if n := scope.border:
        counts[:, :n] = counts[:, -n:] = counts[..., :n] = counts[..., -n:] = False
        planes = np.arange(slab.first, slab.first + len(truth))
        counts[(planes < n) | (planes >= pair.prediction.spatial[0] - n)] = False
    return counts


def _check_finite(source: Source, values: Array, counts: Array, first: int) -> None:
    bad = ~np.isfinite(values) & counts
    if bad.any():
        z, y, x = (int(index[0]) for index in np.nonzero(bad))
        raise EvaluationError(
            f"{source} has {np.count_nonzero(bad)} values that are NaN or infinite in planes {first} to "
            f"{first + len(values) - 1}, the first one at (Z, Y, X) = ({first + z}, {y}, {x})."
        )


def _std(slab: Slab, mean: int, variances: dict[int, int], part: slice) -> Array | None:
    """The predicted standard deviation of a channel: from its variance, else the spread of an ensemble."""
    if mean in variances:
        return np.sqrt(np.maximum(slab.prediction[variances[mean], part].astype(np.float64), 0))
    return None if slab.spread is None else slab.spread[mean, part].astype(np.float64)


def _sampled(slab: Slab, pair: Pair, part: slice, counts: Array, stride: int) -> Array:
    out = slab.prediction[pair.means, part].reshape(len(pair.means), -1)
    truth = slab.truth[:, part].reshape(len(pair.means), -1)
    # at random: the stride and the width of a plane may have a common divisor
    draw = np.random.default_rng(slab.first + part.start)
    chosen = draw.integers(0, counts.size, -(-counts.size // stride))
    chosen = chosen[counts.ravel()[chosen]]
    return np.concatenate([out[:, chosen], truth[:, chosen]]).T


class _Windows:
    """The structural similarity of a channel, with the planes at the end of a slab kept for the next."""

    def __init__(self, data_range: float, *, flat: bool) -> None:
        self._range, self._flat = data_range, flat
        self._kept: tuple[Array, Array] | None = None

    def add(self, prediction: Array, truth: Array, channel: Channel) -> None:
        if not self._range:
            return
        if self._kept is not None and not self._flat:
            prediction, truth = (np.concatenate(pair) for pair in zip(self._kept, (prediction, truth), strict=True))
        self._kept = prediction[-2 * RADIUS :].copy(), truth[-2 * RADIUS :].copy()
        if self._flat or len(truth) > 2 * RADIUS:
            total, count = similarity(prediction, truth, self._range, flat=self._flat)
            channel.similarity = channel.similarity[0] + total, channel.similarity[1] + count
