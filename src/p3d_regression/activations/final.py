"""A final activation as a whole: looked up, with all arguments, for a given number of channels."""

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from p3d_regression.activations.activation import Activation
from p3d_regression.components.configured import Configured
from p3d_regression.components.parameters import Argument
from p3d_regression.interval import Interval
from p3d_regression.text import as_yaml, shortened

if TYPE_CHECKING:
    from torch import Tensor, nn

#: A final activation in a config: a text, a mapping, or a list of these.
Plain = str | dict[str, Argument] | list[str | dict[str, Argument]]


def range_of(entry: Configured[Activation], channels: int) -> Interval:
    """The values that each of ``channels`` channels can have.

    Raises:
        ConfigError: the arguments contradict each other.
    """
    with entry.trial():
        return entry.component.range_of(entry.arguments, channels)


def build(entry: Configured[Activation], channels: int) -> "nn.Module":
    """Build the module and try it on a few numbers.

    Raises:
        ConfigError: its arguments contradict each other, or it breaks a promise of :class:`Activation`.
    """
    import torch

    x = torch.linspace(-8.0, 8.0, 17 * channels, device="cpu").reshape(1, channels, 17, 1, 1)
    with entry.trial(), torch.no_grad():
        # whatever is random in it shows: in one that is built anew and in evaluation mode
        module, other = entry.component.build(**entry.arguments), entry.component.build(**entry.arguments)
        trained, evaluated = module.train()(x.clone()), other.eval()(x.clone())
    if broken := _broken_promise(entry, module, x, trained, evaluated):
        raise entry.refusal(f"cannot be a final activation: {broken}")
    return module


def _broken_promise(
    entry: Configured[Activation], module: Any, x: "Tensor", trained: Any, evaluated: Any
) -> str | None:
    import torch

    if not isinstance(evaluated, torch.Tensor) or evaluated.dtype != x.dtype or evaluated.shape != x.shape:
        return f"it returns {_kind_of(evaluated)} for {_kind_of(x)}"
    if module.state_dict():
        return "it has learnable weights or buffers, which would change the keys of a checkpoint"
    if not torch.equal(trained, evaluated) and not evaluated.isnan().any():
        return "it is random, so training and prediction would use different functions"
    if not evaluated.isfinite().all():
        return f"it returns {evaluated[~evaluated.isfinite()][0].item()} for {x[~evaluated.isfinite()][0].item():g}"
    declared = range_of(entry, x.shape[1])
    slack = 1e-5 * max(1.0, evaluated.abs().max().item())
    low, high = evaluated.min().item(), evaluated.max().item()
    if low < declared.low - slack or high > declared.high + slack:
        return f"it returns values from {low:g} to {high:g} and declares the range {declared}"
    return None


def _kind_of(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"shape {tuple(shape)} of {value.dtype}"


@dataclass(frozen=True)
class FinalActivation:
    """The function between a model's last convolution and its output.

    Attributes:
        entries: one for all channels together, or one for each.
        channels: output channels of the model.
    """

    entries: tuple[Configured[Activation], ...]
    channels: int

    def entry(self, channel: int) -> Configured[Activation]:
        """What is applied to a channel."""
        return self.entries[channel if len(self.entries) > 1 else 0]

    @property
    def groups(self) -> list[tuple[Configured[Activation], int]]:
        """Consecutive channels with the same activation: that, and how many."""
        if len(self.entries) == 1:
            return [(self.entries[0], self.channels)]
        same = [list(group) for _, group in groupby(self.entries, key=lambda entry: entry.plain)]
        return [(group[0], len(group)) for group in same]

    @property
    def plain(self) -> Plain:
        """As plain data with every argument, as in a checkpoint. Where it is equal, so is the function."""
        if len(self.groups) == 1:
            return self.entries[0].plain
        return [entry.plain for entry in self.entries]

    @property
    def ranges(self) -> tuple[Interval, ...]:
        """The values that each channel can have, in the units of the labels."""
        return tuple(interval for entry, n in self.groups for interval in [range_of(entry, n)] * n)

    @property
    def plugins(self) -> list[str]:
        """Distributions, with versions, of the plugins that it needs."""
        return sorted({entry.plugin for entry in self.entries if entry.plugin})

    @property
    def short(self) -> Plain:
        """The same without the arguments at their defaults."""
        return self.entries[0].short if len(self.groups) == 1 else [entry.short for entry in self.entries]

    def __str__(self) -> str:
        """As a config says it, in one line."""
        return shortened(as_yaml(self.short))

    def describe(self) -> str:
        """In words, with ranges: one line, also for a hundred channels."""
        if len(self.groups) == 1:
            ((entry, n),) = self.groups
            return f"{entry}, output range {range_of(entry, n)}"
        parts, first = [], 0
        for entry, n in self.groups:
            where = f"channel {first}" if n == 1 else f"channels {first} to {first + n - 1}"
            parts.append(f"{where} {entry}, output range {range_of(entry, n)}")
            first += n
        return "; ".join(parts)

    def build(self) -> "nn.Module":
        """Build the module: shape (N, C, ...) to (N, C, ...).

        Raises:
            ConfigError: the arguments contradict each other.
        """
        from p3d_regression.activations.modules import PerChannel

        built = [build(entry, n) for entry, n in self.groups]
        return built[0] if len(built) == 1 else PerChannel(built, [n for _, n in self.groups])
