"""Scores from statistics: what is printed, and what stands in JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from p3d_regression.evaluation.statistics import Channel

#: Quantiles of the error, as shares.
_QUANTILES = (0.05, 0.5, 0.95)

#: Scores for which a higher value is better; for MAE, RMSE a lower one is.
HIGHER = ("R2", "Pearson", "PSNR", "SSIM")

#: Samples of the bootstrap, and volumes that it needs.
_SAMPLES, _LEAST_VOLUMES = 2000, 5


def scores_of(channel: Channel) -> dict[str, Any]:
    """The scores of one channel.

    Returns:
        ``MAE``, ``RMSE``, ``bias`` (the mean error, prediction minus truth) and ``error_quantiles`` in the units of the
        labels; ``R2``, ``Pearson``, ``SSIM``; ``PSNR`` in dB, of the range of the truth; ``slope``, that of the
        prediction as a function of the truth. None where a score is not defined.
    """
    pairs, n = channel.pairs, channel.pairs.count
    mse = pairs.error(0.0, 1.0)
    width = channel.high - channel.low
    total, voxels = channel.similarity
    return {
        "MAE": channel.absolute / n,
        "RMSE": math.sqrt(mse),
        "R2": 1 - mse * n / pairs.yy if pairs.yy > 0 else None,
        "Pearson": pairs.xy / math.sqrt(pairs.xx * pairs.yy) if pairs.xx > 0 and pairs.yy > 0 else None,
        "PSNR": 10 * math.log10(width * width / mse) if mse > 0 and width > 0 else None,
        "SSIM": total / voxels if voxels else None,
        "bias": pairs.x - pairs.y,
        "slope": pairs.xy / pairs.yy if pairs.yy > 0 else None,
        "error_quantiles": dict(zip(map(str, _QUANTILES), channel.errors.at(*_QUANTILES), strict=True)),
    }


def merged(volumes: Sequence[Sequence[Channel]]) -> list[Channel]:
    """All volumes as one, channel by channel."""
    pooled = [Channel() for _ in volumes[0]]
    for channels in volumes:
        for all_of_them, channel in zip(pooled, channels, strict=True):
            all_of_them.merge(channel)
    return pooled


def listed(channels: Sequence[Channel]) -> dict[str, Any]:
    """The scores of all channels: a number for one channel, a list for several."""
    found = [scores_of(channel) for channel in channels]
    if len(found) == 1:
        return found[0]
    return {name: [scores[name] for scores in found] for name in found[0]}


def intervals(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of a mean over volumes, from a bootstrap over volumes; None for fewer than 5.

    Voxels are no sample: neighbours are alike.
    """
    if len(values) < _LEAST_VOLUMES:
        return None
    draw = np.random.default_rng(0)
    chosen = draw.choice(np.asarray(values), (_SAMPLES, len(values)))
    low, high = np.quantile(chosen.mean(1), [0.025, 0.975])
    return float(low), float(high)


def over_volumes(volumes: Sequence[Sequence[Channel]]) -> dict[str, Any]:
    """Mean over volumes and its confidence interval, of each score that is a number in each volume.

    A number for one channel, a list for several.
    """
    rows = [[scores_of(channel) for channel in channels] for channels in volumes]
    found: dict[str, Any] = {}
    for name in ("MAE", "RMSE", "R2", "Pearson", "PSNR", "SSIM", "bias"):
        columns = [[row[channel][name] for row in rows] for channel in range(len(rows[0]))]
        if any(value is None for column in columns for value in column):
            continue
        means = [float(np.mean(column)) for column in columns]
        bounds = [intervals(column) for column in columns]
        found[name] = {"mean": single(means), "interval": single([b and list(b) for b in bounds])}
    return found


def single(values: Sequence[Any]) -> Any:
    """A value for one channel, a list for several."""
    return values[0] if len(values) == 1 else list(values)
