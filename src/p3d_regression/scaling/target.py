"""The step from standardised values, which a network learns fast, to the units of the labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p3d_regression.errors import ConfigError
from p3d_regression.interval import NON_NEGATIVE, NON_POSITIVE, REAL_LINE, Interval
from p3d_regression.scaling.spec import IDENTITY, PLACE, Numbers, Spec, parse, spec_of
from p3d_regression.text import as_yaml

if TYPE_CHECKING:
    from torch import nn

    from p3d_regression.activations.final import FinalActivation


@dataclass(frozen=True)
class TargetScaling:
    """``mean + std * f(x)``, for each output channel on its own.

    Attributes:
        numbers: one per output channel, in the units of the labels; the mean is 0 where the final activation is
            bounded by zero.
    """

    numbers: tuple[Numbers, ...]

    @property
    def plain(self) -> dict[str, list[float]]:
        """What a config may say and a checkpoint keeps. Where it is equal, so is the function."""
        return {"mean": [n.mean for n in self.numbers], "std": [n.std for n in self.numbers]}

    def __str__(self) -> str:
        """As a config would say it, in one line."""
        one = len(self.numbers) == 1
        return as_yaml({key: values[0] if one else values for key, values in self.plain.items()})

    def describe(self, final: "FinalActivation") -> str:
        """In words: one line, with the numbers as a config could give them."""
        formulas = [_formula(n, str(final.entry(channel))) for channel, n in enumerate(self.numbers)]
        if len(formulas) == 1:
            return f"output = {formulas[0]}"
        return "; ".join(f"channel {channel} = {formula}" for channel, formula in enumerate(formulas))

    def build(self) -> "nn.Module":
        """Build the module: shape (N, C, ...) to (N, C, ...), without parameters and without a trace in its state."""
        from p3d_regression.scaling.modules import Rescale

        return Rescale(**self.plain)


def _formula(numbers: Numbers, activation: str) -> str:
    activation = "x" if activation == "none" else activation
    if numbers == IDENTITY:
        return activation
    mean = "" if numbers.mean == 0 else f"{_written(numbers.mean)} + "
    return f"{mean}{_written(numbers.std)} * {activation}"


def _written(number: float) -> str:
    return f"{number:.9g}"


def scaling_of(spec: Spec, final: "FinalActivation", measured: Sequence[Numbers] | None = None) -> TargetScaling | None:
    """Return what a specification means for a model with a final activation; None if it leaves all channels alone.

    Args:
        spec: of the config.
        final: the model's final activation.
        measured: mean and standard deviation that each channel has to have, for those that ``spec`` leaves open.

    Raises:
        ConfigError: the final activation cannot be scaled.
    """
    check(spec, final)
    numbers = []
    for channel, term in enumerate(spec.terms):
        if term is None:
            assert measured is not None, "nothing was measured"
            offset = 0.0 if is_bounded_by_zero(final.ranges[channel]) else measured[channel].mean
            term = Numbers(offset, measured[channel].std)
        numbers.append(term)
    return None if set(numbers) == {IDENTITY} else TargetScaling(tuple(numbers))


def restored(plain: Any, final: "FinalActivation") -> TargetScaling:
    """Return what a checkpoint remembers as ``plain``.

    Raises:
        ConfigError: it makes no sense with the final activation.
    """
    found = scaling_of(parse(plain, final.channels), final)
    if found is None:
        raise ConfigError(f"{PLACE}: {plain!r} scales nothing")
    return found


def is_bounded_by_zero(interval: Interval) -> bool:
    """Whether scaling must not add a mean to values of this range."""
    return interval in (NON_NEGATIVE, NON_POSITIVE)


def spec_for(model_config: Mapping[str, object], final: "FinalActivation") -> Spec | None:
    """Return what a model section says of a scaling of its final activation; None if it says nothing.

    Raises:
        ConfigError: it is not understood, or the final activation cannot be scaled.
    """
    spec = spec_of(model_config, final.channels)
    if spec is not None:
        check(spec, final)
    return spec


def check(spec: Spec, final: "FinalActivation") -> None:
    """Refuse to scale what has bounds of its own.

    Raises:
        ConfigError: the output of a channel would get other bounds than the config says.
    """
    for channel, term in enumerate(spec.terms):
        if term == IDENTITY:
            continue
        _check_channel(final, channel)
        if term is not None and term.mean != 0 and is_bounded_by_zero(final.ranges[channel]):
            entry = final.entry(channel)
            raise ConfigError(
                f"{PLACE}: the mean {term.mean:g}{_where(final, channel)} would move the bound of {entry}, whose range "
                f"is {final.ranges[channel]}: only std scales it. Write mean: 0; or, for unbounded values, "
                "final_activation: none."
            )


def _check_channel(final: "FinalActivation", channel: int) -> None:
    entry, interval = final.entry(channel), final.ranges[channel]
    scalable = interval == REAL_LINE or is_bounded_by_zero(interval)
    if scalable and not entry.component.over_channels:
        return
    where = _where(final, channel)
    if entry.component.over_channels:
        why, fix = "acts over all channels together, and scaled one by one they would lose what it makes of them", ""
    elif math.isfinite(interval.low) and math.isfinite(interval.high):
        why = f"is bounded: its values, in {interval}, are the ones that you have asked for"
        fix = " For labels between two physical values write final_activation: {name: bounded, low: ..., high: ...}."
    else:
        why = f"has the range {interval}: scaled it would have another bound"
        fix = " What is bounded by 0, such as softplus, can be scaled."
    others = " Leave it out of a list: target_scaling: [none, standardize]." if final.channels > 1 else ""
    raise ConfigError(
        f"{PLACE}: {entry}{where} {why}.{fix} For unbounded values write final_activation: none. Or delete the line "
        f"target_scaling.{others}"
    )


def _where(final: "FinalActivation", channel: int) -> str:
    return "" if final.channels == 1 else f" (output channel {channel})"
