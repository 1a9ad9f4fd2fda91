"""Whether predicted standard deviations are as large as the errors, and a factor that makes them so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from p3d_regression.evaluation.statistics import Calibration, Channel

#: Shares of the voxels whose truth should lie in an interval around the prediction.
LEVELS = (0.5, 0.68, 0.9, 0.95)


@dataclass(frozen=True)
class Fit:
    """What makes predicted standard deviations fit, found on other volumes.

    Attributes:
        factor: of the standard deviations, with the largest likelihood.
        widths: for each level the half width of the interval, in standard deviations: the quantile of the absolute
            errors (split conformal prediction).
        volumes: it was found on.
    """

    factor: float
    widths: Mapping[float, float]
    volumes: Sequence[str]

    @property
    def plain(self) -> dict[str, Any]:
        widths = {str(level): width for level, width in self.widths.items()}
        return {"factor": self.factor, "widths": widths, "volumes": list(self.volumes)}


def normal_widths(levels: Sequence[float] = LEVELS) -> dict[float, float]:
    """The half widths of intervals of a normal distribution, in standard deviations."""
    return {level: NormalDist().inv_cdf((1 + level) / 2) for level in levels}


def fit(found: Calibration, volumes: Sequence[str]) -> Fit:
    """Find a factor and widths."""
    widths = dict(zip(LEVELS, found.ratios.at(*LEVELS), strict=True))
    return Fit(math.sqrt(found.squares / found.count), widths, volumes)


def coverage(found: Calibration, widths: Mapping[float, float]) -> dict[str, float]:
    """The share of the truth inside of each interval, by its level."""
    shares = found.ratios.share_below(np.array(list(widths.values())))
    return {str(level): share for level, share in zip(widths, shares, strict=True)}


def summary(channel: Channel, fitted: Fit | None = None) -> dict[str, Any] | None:
    """Coverage, negative log-likelihood and sharpness of the predicted standard deviations of a channel.

    Returns:
        None where there are none. ``coverage`` by level; ``NLL``, the mean negative logarithm of the normal density;
        ``sharpness``, the mean standard deviation in the units of the labels; with a fit the same after it.
    """
    found = channel.calibration
    if found is None or not found.count:
        return None
    told = {"coverage": coverage(found, normal_widths()), "NLL": _nll(found, 1.0)}
    told["sharpness"] = found.deviation / found.count
    if fitted is not None:
        told["calibrated"] = {"coverage": coverage(found, fitted.widths), "NLL": _nll(found, fitted.factor)}
    return told


def _nll(found: Calibration, factor: float) -> float:
    mean = (found.log_variance + found.squares / factor**2) / found.count
    return 0.5 * (math.log(2 * math.pi) + 2 * math.log(factor) + mean)
