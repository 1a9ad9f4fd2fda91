"""What costs nothing, beside the score of a validation: a constant, the raw volume itself, the best line through it.

A denoiser with an R2 of 0.94 is worse than nothing where the noisy volume itself has 0.97.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from p3d_regression import group
from p3d_regression.scaling.line import in_units_of_file
from p3d_regression.scaling.terms import Follow
from p3d_regression.training.plan import Plan
from p3d_regression.training.scaling import Lines, could_follow
from p3d_regression.upstream import datasets, samples
from p3d_regression.upstream.log import say

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

#: Patches of the training that a line is fitted to.
MOST_PATCHES = 64


@dataclass(frozen=True)
class Guess:
    """For one output channel ``intercept + slope * raw``, with raw values as the network sees them.

    Attributes:
        in_channel: of the raw volume.
        constant: the mean of the training labels.
        line: intercept and slope of the least squares.
        raw: the same that turn raw values into those of the file; None if the labels have other units.
    """

    in_channel: int
    constant: float
    line: tuple[float, float]
    raw: tuple[float, float] | None


def guesses_of(config: Mapping[str, Any], plan: Plan) -> dict[int, Guess]:
    """The guesses for the output channels of a training that predict labels; empty where there are none.

    Args:
        config: of the training.
        plan: of the same.
    """
    model, loaders = config.get("model"), config.get("loaders")
    if not (plan.is_regression and isinstance(model, Mapping) and isinstance(loaders, Mapping)):
        return {}
    try:
        spec = could_follow(model, plan)
        if spec is None or plan.units_differ(len(spec.terms)) or not datasets.can_stream(loaders):
            return {}
        lines = Lines(plan, spec)
        for patch in samples.shown(loaders, "train", MOST_PATCHES):
            lines.add(patch)
    except Exception:
        # what is wrong with the data, pytorch-3dunet says next
        logger.debug("baselines", exc_info=True)
        return {}
    found = {}
    for channel, pair in lines.found.items():
        term, voxels = spec.terms[channel], pair.voxels
        if isinstance(term, Follow) and voxels.count:
            raw = in_units_of_file(pair, lines.stored[channel])
            found[channel] = Guess(term.in_channel, voxels.y, (voxels.intercept, voxels.slope), raw)
    return found


class Accumulating(Protocol):
    """A metric over all batches that it has been shown."""

    def add(self, output: "Tensor", label: "Tensor") -> None:
        """Take in predictions and labels, both of shape (N, C, D, H, W)."""

    @property
    def value(self) -> float:
        """Of all of them."""


@dataclass
class SquaredError:
    """The MSE of pytorch-3dunet over a whole validation, without torchmetrics; of all processes together."""

    sum: float = 0.0
    count: int = 0

    def add(self, output: "Tensor", label: "Tensor") -> None:
        """Take in predictions and labels of the same shape."""
        self.sum += float((output.double() - label.double()).square().sum())
        self.count += label.numel()

    @property
    def value(self) -> float:
        parts = group.gathered((self.sum, self.count))
        total, count = (float(sum(column)) for column in zip(*parts, strict=True))
        return total / max(count, 1.0)


@dataclass
class Baselines:
    """The scores of the guesses on the voxels of the first validation; later ones show the same.

    Attributes:
        guesses: by output channel.
        name: of the metric of the training.
        metric: makes that metric anew.
        predicted: from the number of output channels to those that predict the labels' channels.
        better: whether a higher score is better.
    """

    guesses: Mapping[int, Guess]
    name: str
    metric: "Callable[[], Accumulating]"
    predicted: Callable[[int], list[int]]
    better: bool
    values: dict[str, float] = field(default_factory=dict)
    _running: "dict[str, Accumulating]" = field(default_factory=dict)

    def add(self, raw: "Tensor", labels: "Tensor", output: "Tensor") -> None:
        """Take in a batch of the first validation."""
        if self.values or not self.guesses:
            return
        try:
            for name in self._names:
                if name not in self._running:
                    self._running[name] = self.metric()
                self._running[name].add(self._guessed(name, raw, output), labels)
        except Exception:
            logger.debug("baselines", exc_info=True)
            self.guesses = {}
            self._running.clear()

    @property
    def _names(self) -> list[str]:
        in_units = all(guess.raw is not None for guess in self.guesses.values())
        return ["a constant", *(["the raw volume itself"] if in_units else []), "the best line through the raw volume"]

    def _guessed(self, name: str, raw: "Tensor", output: "Tensor") -> "Tensor":
        guessed = output.detach().clone().float()
        for channel, guess in self.guesses.items():
            if name == "a constant":
                guessed[:, channel] = guess.constant
            else:
                intercept, slope = guess.line if guess.raw is None or "line" in name else guess.raw
                guessed[:, channel] = intercept + slope * raw[:, guess.in_channel].float()
        return guessed[:, self.predicted(guessed.shape[1])]

    def compare(self, found: float) -> None:
        """Say the scores of the guesses after the first validation, and after each one that is worse."""
        if not self.values and all(group.gathered(bool(self._running))):
            self.values = {name: accumulated.value for name, accumulated in self._running.items()}
            self._running.clear()
            listed = ", ".join(f"{name} {value:.6g}" for name, value in self.values.items())
            say(f"{self.name} without a network: {listed}")
        worse = {name: v for name, v in self.values.items() if (found < v if self.better else found > v)}
        if worse:
            name = (max if self.better else min)(worse, key=lambda key: worse[key])
            # the first validations of most trainings are
            say(f"{self.name} {found:.6g} of this validation is worse than {name}, {worse[name]:.6g}")
