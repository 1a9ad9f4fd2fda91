"""A final activation as a whole: looked up, with all arguments, for a given number of channels."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from p3d_regression.activations.activation import Activation
from p3d_regression.components.parameters import Argument, Scalar, with_arguments
from p3d_regression.errors import ConfigError
from p3d_regression.interval import Interval
from p3d_regression.text import as_yaml

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What a config may say, with nothing left to default: text, mapping, or list of these.
Plain = str | dict[str, Argument] | list[str | dict[str, Argument]]


@dataclass(frozen=True)
class Entry:
    """An activation with all its arguments.

    Attributes:
        activation: what is applied.
        arguments: all that a config may give, also those it has left at their defaults.
        place: where the config names it, for error messages.
        plugin: distribution, with version, of the plugin it comes from; None for torch's and the project's own.
    """

    activation: Activation
    arguments: Mapping[str, Scalar]
    place: str
    plugin: str | None = None

    @property
    def plain(self) -> str | dict[str, Argument]:
        """What a checkpoint keeps of it."""
        return with_arguments(self.activation.name, self.arguments)

    @property
    def short(self) -> str | dict[str, Argument]:
        """The same without the arguments that are at their defaults."""
        return self.activation.short(self.arguments)

    def __str__(self) -> str:
        """As a config would say it, in one line; shortened if it is absurdly long."""
        return _shorten(as_yaml(self.short))

    def range(self, channels: int) -> Interval:
        """The values that each of ``channels`` channels can have.

        Raises:
            ConfigError: the arguments make no sense together.
        """
        try:
            return self.activation.range_of(self.arguments, channels)
        except Exception as error:
            raise self._impossible(error) from self._cause(error)

    def build(self, channels: int) -> "nn.Module":
        """Build the module and try it on a few numbers.

        Raises:
            ConfigError: its arguments make no sense together, or it breaks a promise of :class:`Activation`.
        """
        import torch

        x = torch.linspace(-8.0, 8.0, 17 * channels, device="cpu").reshape(1, channels, 17, 1, 1)
        try:
            # Whatever is random in it shows: in one that is built anew and in evaluation mode. Nothing random is
            # taken from the user's seed for that.
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                module, other = self.activation.build(**self.arguments), self.activation.build(**self.arguments)
                trained, evaluated = module.train()(x.clone()), other.eval()(x.clone())
        except Exception as error:
            raise self._impossible(error) from self._cause(error)
        if broken := self._broken_promise(module, x, trained, evaluated):
            usage = f" {self.activation.usage()}" if self.arguments else ""
            raise ConfigError(f"{self.place}: {self} cannot be a final activation: {broken}.{usage}")
        return module

    def _broken_promise(self, module: Any, x: "Tensor", trained: Any, evaluated: Any) -> str | None:
        import torch

        if not isinstance(evaluated, torch.Tensor) or evaluated.dtype != x.dtype or evaluated.shape != x.shape:
            return f"it makes {_kind_of(evaluated)} of {_kind_of(x)}"
        if module.state_dict():
            return "it has learnable weights or buffers, which would change what a checkpoint holds"
        if not torch.equal(trained, evaluated) and not evaluated.isnan().any():
            return "it is random, so that training and prediction would see different functions"
        if not evaluated.isfinite().all():
            return f"it makes {evaluated[~evaluated.isfinite()][0].item()} of {x[~evaluated.isfinite()][0].item():g}"
        declared = self.range(x.shape[1])
        slack = 1e-5 * max(1.0, evaluated.abs().max().item())
        low, high = evaluated.min().item(), evaluated.max().item()
        if low < declared.low - slack or high > declared.high + slack:
            return f"it makes values from {low:g} to {high:g} and declares the range {declared}"
        return None

    def _cause(self, error: Exception) -> Exception | None:
        """The traceback that helps: for a plugin's author, not for somebody who has written a config."""
        return error if self.plugin else None

    def _impossible(self, error: Exception) -> ConfigError:
        # torch checks some arguments with an assert that says nothing: then its line does
        reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__
        what = f"{self.place}: {self} cannot be computed: {reason[:500].rstrip('.')}."
        return ConfigError(f"{what} {self.activation.usage()}")


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

    entries: tuple[Entry, ...]
    channels: int

    def entry(self, channel: int) -> Entry:
        """What is applied to a channel."""
        return self.entries[channel if len(self.entries) > 1 else 0]

    @property
    def groups(self) -> list[tuple[Entry, int]]:
        """Consecutive channels with the same activation: that, and how many."""
        if len(self.entries) == 1:
            return [(self.entries[0], self.channels)]
        same = [list(group) for _, group in groupby(self.entries, key=lambda entry: entry.plain)]
        return [(group[0], len(group)) for group in same]

    @property
    def plain(self) -> Plain:
        """As plain data with every argument: what a checkpoint keeps. Where it is equal, so is the function."""
        if len(self.groups) == 1:
            return self.entries[0].plain
        return [entry.plain for entry in self.entries]

    @property
    def ranges(self) -> tuple[Interval, ...]:
        """The values that each channel can have, in the units of the labels."""
        return tuple(interval for entry, n in self.groups for interval in [entry.range(n)] * n)

    @property
    def plugins(self) -> list[str]:
        """Distributions, with versions, of the plugins that it needs."""
        return sorted({entry.plugin for entry in self.entries if entry.plugin})

    def __str__(self) -> str:
        """As a config would say it, in one line."""
        if len(self.groups) == 1:
            return str(self.entries[0])
        return _shorten(as_yaml([entry.short for entry in self.entries]))

    def describe(self) -> str:
        """In words, with ranges: one line, also for a hundred channels."""
        if len(self.groups) == 1:
            ((entry, n),) = self.groups
            return f"{entry}, output range {entry.range(n)}"
        parts, first = [], 0
        for entry, n in self.groups:
            where = f"channel {first}" if n == 1 else f"channels {first} to {first + n - 1}"
            parts.append(f"{where} {entry}, output range {entry.range(n)}")
            first += n
        return "; ".join(parts)

    def build(self) -> "nn.Module":
        """Build the module: shape (N, C, ...) to (N, C, ...).

        Raises:
            ConfigError: the arguments make no sense together.
        """
        from p3d_regression.activations.modules import PerChannel

        built = [entry.build(n) for entry, n in self.groups]
        return built[0] if len(built) == 1 else PerChannel(built, [n for _, n in self.groups])


def _shorten(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:290]} ... {text[-5:]}"
