"""What costs no network, on the same voxels, and whether a prediction is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from p3d_regression.evaluation.statistics import Channel
from p3d_regression.model import memory
from p3d_regression.upstream import checkpoints

CONSTANT = "best constant"
TRAINING = "mean of the training labels"
RAW = "raw volume itself"
LINE = "best line through the raw volume"


@dataclass(frozen=True)
class Guess:
    """A guess without a network.

    Attributes:
        name: of it.
        mse: mean squared error, per channel.
    """

    name: str
    mse: Sequence[float]

    @property
    def rmse(self) -> list[float]:
        return [math.sqrt(value) for value in self.mse]


def guesses(channels: Sequence[Channel], training_means: Sequence[float] | None) -> list[Guess]:
    """The guesses for all channels; the raw volume itself where it is better than a constant.

    Args:
        channels: of all volumes.
        training_means: of the labels of the training, if they are known.
    """
    variances = [channel.pairs.yy / channel.pairs.count for channel in channels]
    found = [Guess(CONSTANT, variances)]
    if training_means is not None and len(training_means) == len(channels):
        offsets = [channel.pairs.y - mean for channel, mean in zip(channels, training_means, strict=True)]
        found.append(Guess(TRAINING, [v + offset * offset for v, offset in zip(variances, offsets, strict=True)]))
    if all(channel.raw.count for channel in channels):
        raws = [channel.raw for channel in channels]
        itself = Guess(RAW, [raw.error(0.0, 1.0) for raw in raws])
        # else it is in other units, and nobody would take it for a guess
        if any(error < variance for error, variance in zip(itself.mse, variances, strict=True)):
            found.append(itself)
        found.append(Guess(LINE, [raw.error(raw.intercept, raw.slope) for raw in raws]))
    return found


def training_means(config: Mapping[str, Any]) -> list[float] | None:
    """The mean of the training labels, per channel, if the checkpoint of a config remembers them."""
    try:
        path = checkpoints.checkpoint_of(config, "predict")
        weights = checkpoints.checkpoint_weights(path) if path else {}
        head = weights["final_conv.weight"]
        held = memory.from_metadata(checkpoints.metadata_of(weights), int(head.shape[0]))
        terms = held.scaling.terms if held and held.scaling else ()
        means = [float(getattr(term, "mean", 0.0)) for term in terms]
        # 0 stands for labels that were not shifted
        return means if means and all(means) else None
    except Exception:
        return None  # a prediction can be scored without its checkpoint


def verdict(channels: Sequence[Channel], guessed: Sequence[Guess]) -> tuple[bool, str]:
    """Whether predictions are better than each guess, and a sentence.

    Several channels are compared by the mean of their errors, each divided by the standard deviation of its truth.
    """
    variances = [channel.pairs.yy / channel.pairs.count or 1.0 for channel in channels]
    own = _relative([_mse(channel) for channel in channels], variances)
    best = min(guessed, key=lambda guess: _relative(guess.mse, variances))
    other = _relative(best.mse, variances)
    if len(channels) == 1:
        unit = math.sqrt(variances[0])
        numbers = f"RMSE {own * unit:.4g} against {other * unit:.4g}"
    else:
        numbers = f"RMSE {own:.4g} against {other:.4g} standard deviations of the truth"
    if own < other:
        less = _percent(1 - own / other)
        return True, f"better than the best guess without a network, the {best.name}: {numbers}, {less} less"
    more = f", {_percent(own / other - 1)} more" if other else ""
    return False, f"WORSE than the {best.name}, which needs no network: {numbers}{more}"


def _percent(share: float) -> str:
    """With a decimal where it is small: 0.4 % is neither nothing nor 1 %."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _mse(channel: Channel) -> float:
    return channel.pairs.error(0.0, 1.0)


def _relative(mse: Sequence[float], variances: Sequence[float]) -> float:
    return math.sqrt(sum(value / variance for value, variance in zip(mse, variances, strict=True)) / len(mse))
