"""The step from standardised values, which a network learns fast, to the units of the labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, delete, write
from p3d_regression.interval import NON_NEGATIVE, NON_POSITIVE, REAL_LINE, Interval
from p3d_regression.scaling.spec import PLACE, Spec, parse, spec_of
from p3d_regression.scaling.terms import IDENTITY, Follow, Numbers, Term
from p3d_regression.text import as_yaml

if TYPE_CHECKING:
    from torch import nn

    from p3d_regression.activations.final import FinalActivation


@dataclass(frozen=True)
class TargetScaling:
    """``mean + std * f(x)``, for each output channel on its own; or an output that follows the raw volume.

    Attributes:
        terms: one per output channel, in the units of the labels; the mean is 0 where the final activation is bounded
            by zero.
    """

    terms: tuple[Term, ...]

    @property
    def plain(self) -> object:
        """As in a config and in a checkpoint. Where it is equal, so is the function, but for ``spread``."""
        numbers = [term for term in self.terms if isinstance(term, Numbers)]
        if len(numbers) == len(self.terms):
            return {"mean": [n.mean for n in numbers], "std": [n.std for n in numbers]}
        return [term.plain if isinstance(term, Follow) else asdict(term) for term in self.terms]

    @property
    def follows_raw(self) -> bool:
        """Whether a channel follows the raw volume."""
        return any(isinstance(term, Follow) for term in self.terms)

    @property
    def sizes(self) -> tuple[Numbers, ...]:
        """For each channel a mean, and how far one of the last layer moves the output, in the units of the labels."""
        return tuple(_size(term) for term in self.terms)

    def __str__(self) -> str:
        """As a config says it, in one line."""
        plain = self.plain
        if len(self.terms) > 1:
            return as_yaml(plain)
        return as_yaml(plain[0] if isinstance(plain, list) else asdict(self.terms[0]))

    def describe(self, final: "FinalActivation") -> str:
        """In words: one line, with the numbers as a config could give them."""
        formulas = [_formula(term, str(final.entry(channel))) for channel, term in enumerate(self.terms)]
        if len(formulas) == 1:
            return f"output = {formulas[0]}"
        return "; ".join(f"channel {channel} = {formula}" for channel, formula in enumerate(formulas))

    def build(self) -> "nn.Module":
        """Build the module: shape (N, C, ...) to (N, C, ...), without parameters and without a trace in its state."""
        from p3d_regression.scaling.modules import FollowRaw, Rescale

        if self.follows_raw:
            return FollowRaw(self.terms)
        return Rescale([n.mean for n in self.sizes], [n.std for n in self.sizes])


def _size(term: Term) -> Numbers:
    if isinstance(term, Numbers):
        return term
    assert term.line is not None, "nothing was measured"
    return Numbers(term.line.intercept, term.line.scale * (term.line.spread or 1.0))


def _formula(numbers: Term, activation: str) -> str:
    activation = "x" if activation == "none" else activation
    if isinstance(numbers, Follow):
        assert numbers.line is not None
        line = numbers.line
        raw = "raw" if numbers.in_channel == 0 else f"raw channel {numbers.in_channel}"
        level = raw if numbers.kind == "residual" else f"mean({raw} patch)"
        intercept = "" if line.intercept == 0 else f"{_written(line.intercept)} + "
        return f"{intercept}{_written(line.slope)} * {level} + {_written(line.scale)} * std({raw} patch) * {activation}"
    if numbers == IDENTITY:
        return activation
    mean = "" if numbers.mean == 0 else f"{_written(numbers.mean)} + "
    return f"{mean}{_written(numbers.std)} * {activation}"


def _written(number: float) -> str:
    return f"{number:.9g}"


def scaling_of(spec: Spec, final: "FinalActivation", measured: Sequence[Term] | None = None) -> TargetScaling | None:
    """Return the scaling of a model with a final activation; None if no channel is scaled.

    Args:
        spec: of the config.
        final: the model's final activation.
        measured: mean and standard deviation of the labels of each channel, or the line from the raw volume, for those
            that ``spec`` leaves open.

    Raises:
        ConfigError: the final activation cannot be scaled.
    """
    check(spec, final)
    terms: list[Term] = []
    for channel, term in enumerate(spec.terms):
        found = measured[channel] if measured is not None else term
        if term is None:
            assert isinstance(found, Numbers), "nothing was measured"
            term = Numbers(0.0 if is_bounded_by_zero(final.ranges[channel]) else found.mean, found.std)
        elif isinstance(term, Follow) and isinstance(found, Follow):
            term = found
        terms.append(term)
    return None if set(terms) == {IDENTITY} else TargetScaling(tuple(terms))


def restored(plain: Any, final: "FinalActivation") -> TargetScaling:
    """Return the scaling that a checkpoint remembers as ``plain``.

    Raises:
        ConfigError: it is not understood, or the final activation cannot be scaled.
    """
    found = scaling_of(parse(plain, final.channels), final)
    if found is None:
        raise ConfigError(PLACE, f"{plain!r} scales nothing.", delete(PLACE))
    return found


def is_bounded_by_zero(interval: Interval) -> bool:
    """Whether scaling must not add a mean to values of this range."""
    return interval in (NON_NEGATIVE, NON_POSITIVE)


def spec_for(model_config: Mapping[str, object], final: "FinalActivation") -> Spec | None:
    """Return the scaling that a model section asks for; None if it has no such key.

    Raises:
        ConfigError: it is not understood, or the final activation cannot be scaled.
    """
    spec = spec_of(model_config, final.channels)
    if spec is not None:
        check(spec, final)
    return spec


def check(spec: Spec, final: "FinalActivation") -> None:
    """Refuse to scale a final activation whose bounds would move.

    Raises:
        ConfigError: the output of a channel would get other bounds than the config says.
    """
    for channel, term in enumerate(spec.terms):
        entry, interval = final.entry(channel), final.ranges[channel]
        where = "" if final.channels == 1 else f" (output channel {channel})"
        if term == IDENTITY:
            continue
        if isinstance(term, Follow) and (interval != REAL_LINE or entry.component.over_channels):
            why = (
                f"{term.kind} adds the level of the raw volume to the output{where}, which {entry} bounds: the bound "
                "would move. For unbounded values write final_activation: none."
            )
            raise ConfigError(PLACE, why, _scaling_the_others(spec, final))
        if obstacle := _obstacle(final, channel):
            why = f"{entry}{where} {obstacle}. For unbounded values write final_activation: none."
            raise ConfigError(PLACE, why, _scaling_the_others(spec, final))
        if isinstance(term, Numbers) and term.mean != 0 and is_bounded_by_zero(interval):
            why = f"the mean {term.mean:g}{where} would move the bound of {entry}, whose range is {interval}"
            why = f"{why}: only std scales it. For unbounded values write final_activation: none."
            raise ConfigError(PLACE, why, _scaling_the_others(spec, final))


def _obstacle(final: "FinalActivation", channel: int) -> str:
    """Why the output of a channel cannot be scaled; empty if it can."""
    interval = final.ranges[channel]
    if final.entry(channel).component.over_channels:
        return "acts over all channels, and scaling them one by one would change what they are together"
    if interval == REAL_LINE or is_bounded_by_zero(interval):
        return ""
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        bounded = "for labels between two physical values write final_activation: {name: bounded, low: ..., high: ...}"
        return f"is bounded: its values are in {interval}, as the config says; {bounded}"
    return f"has the range {interval}, and scaling would move its bound; only a bound of 0, as of softplus, stays"


def _scaling_the_others(spec: Spec, final: "FinalActivation") -> Fix:
    """Scale what can be scaled."""
    terms: list[Term | None] = list(spec.terms)
    for channel, term in enumerate(terms):
        if _obstacle(final, channel):
            terms[channel] = IDENTITY
        elif isinstance(term, Numbers) and is_bounded_by_zero(final.ranges[channel]):
            terms[channel] = Numbers(0.0, term.std)
        elif isinstance(term, Follow) and is_bounded_by_zero(final.ranges[channel]):
            terms[channel] = None
    return delete(PLACE) if set(terms) == {IDENTITY} else write(PLACE, Spec(tuple(terms)).plain)
