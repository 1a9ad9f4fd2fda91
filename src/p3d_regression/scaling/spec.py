"""The value of ``model.target_scaling`` as a specification: pure data, nothing is measured."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Any, NoReturn

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.activations.spec import fitted, rewritten
from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, write
from p3d_regression.scaling.terms import FOLLOWING, IDENTITY, LARGEST, SMALLEST, Follow, Line, Numbers, Term, single
from p3d_regression.text import fold, number_hint, number_in

#: The key of the ``model`` section.
KEY = "target_scaling"

PLACE = f"model.{KEY}"
_FORMS = (
    "Allowed: standardize (mean and standard deviation of the training labels), patch and residual (the output follows "
    "the raw patch), none, {mean: 12.5, std: 13} in the units of the labels, or a list with one of these per output "
    "channel; mean and std may be lists as well."
)


@dataclass(frozen=True)
class Spec:
    """What a config says after ``target_scaling:``.

    Attributes:
        terms: one per output channel; None for ``standardize``, which has to be measured.
    """

    terms: tuple[Term | None, ...]

    @property
    def plain(self) -> object:
        """As a config says it."""
        terms = [_plain(term) for term in self.terms]
        return terms[0] if all(term == terms[0] for term in terms) else terms

    @property
    def is_measured(self) -> bool:
        """Whether some of it has to be measured on the volumes of the training."""
        return any(term is None or (isinstance(term, Follow) and not term.is_complete) for term in self.terms)

    @property
    def is_open(self) -> bool:
        """Whether it cannot be computed without numbers from somewhere else."""
        return any(term is None or (isinstance(term, Follow) and term.line is None) for term in self.terms)

    @property
    def follows_raw(self) -> bool:
        """Whether a channel follows the raw volume."""
        return any(isinstance(term, Follow) for term in self.terms)

    def allows(self, channel: int, trained: Term) -> bool:
        """Whether the scaling of a checkpoint is one that this leaves open, or names."""
        term = self.terms[channel]
        if term is None:
            return isinstance(trained, Numbers)
        if isinstance(term, Follow) and term.line is None:
            return isinstance(trained, Follow) and (term.kind, term.in_channel) == (trained.kind, trained.in_channel)
        return term == trained


def _plain(term: Term | None) -> object:
    if term is None:
        return "standardize"
    if isinstance(term, Follow):
        return term.kind if term.line is None and term.in_channel == 0 else term.plain
    return "none" if term == IDENTITY else {"mean": term.mean, "std": term.std}


def parse(value: object, channels: int, in_channels: int | None = None) -> Spec:
    """Return the specification for a value in a config.

    Args:
        value: ``standardize``; ``patch`` or ``residual``, or a mapping with one of these as ``name``; ``none`` or None;
            a mapping with ``mean`` and ``std``; or a list of these.
        channels: output channels of the model.
        in_channels: of its raw volumes; None if that is not known.

    Raises:
        ConfigError: ``value`` has another form, or a list of another length; the message says what is allowed.

    >>> parse("standardize", 2).terms
    (None, None)
    >>> parse({"mean": [12.5, 0], "std": [13, 1]}, 2).terms
    (Numbers(mean=12.5, std=13.0), Numbers(mean=0.0, std=1.0))
    """
    if isinstance(value, list | tuple):
        _check_length(PLACE, value, channels, "none")
        raws = [_same_channel(i, channels, in_channels) for i in range(channels)]
        return Spec(tuple(_term(entry, f"{PLACE}[{i}]", raws[i]) for i, entry in enumerate(value)))
    if isinstance(value, Mapping) and "name" not in value:
        _check_keys(PLACE, value)
        means = _per_channel(f"{PLACE}.mean", value["mean"], channels, 0.0)
        return Spec(tuple(map(_numbers, means, _per_channel(f"{PLACE}.std", value["std"], channels, 1.0))))
    return Spec(tuple(_term(value, PLACE, _same_channel(i, channels, in_channels)) for i in range(channels)))


def _same_channel(channel: int, channels: int, in_channels: int | None) -> int | None:
    """The channel of the raw volume that an output channel follows by itself; None if that is not clear."""
    if in_channels == 1:
        return 0
    return channel if in_channels in (None, channels) else None


def _term(value: object, place: str, raw_channel: int | None) -> Term | None:
    if value is None:
        return IDENTITY
    if isinstance(value, str):
        if fold(value) in ("standardize", "standardise"):
            return None
        if fold(value) == "none":
            return IDENTITY
        if fold(value) in FOLLOWING:
            return _follow({"name": value}, place, raw_channel)
        near = get_close_matches(fold(value), ["standardize", *FOLLOWING, "none"], n=1)
        why = f"is not known; did you mean {near[0]}?" if near else "is not known."
        _refuse(place, value, why, write(place, near[0]) if near else None)
    if isinstance(value, bool):
        fix = write(place, "standardize" if value else "none")
        _refuse(place, value, "is a boolean (YAML reads no, off and false as one); write standardize or none.", fix)
    if isinstance(value, Mapping) and "name" in value:
        return _follow(value, place, raw_channel)
    if isinstance(value, Mapping):
        _check_keys(place, value)
        return _numbers((f"{place}.mean", value["mean"]), (f"{place}.std", value["std"]))
    _refuse(place, value, "is not understood.")


def _follow(value: Mapping[object, object], place: str, raw_channel: int | None) -> Follow | None:
    """A channel that follows the raw volume, with numbers or without."""
    kind = value["name"]
    if not isinstance(kind, str) or fold(kind) not in FOLLOWING:
        _refuse(f"{place}.name", kind, f"is not one of {', '.join(FOLLOWING)}.", write(f"{place}.name", "residual"))
    allowed = ("name", "intercept", "slope", "scale", "spread", "in_channel")
    if more := [key for key in value if key not in allowed]:
        fix = rewritten(place, {key: item for key, item in value.items() if key in allowed})
        _refuse(place, value, f"has the key {reprlib.repr(more[0])}; the keys are {', '.join(allowed)}.", fix)
    channel = value.get("in_channel", raw_channel)
    if channel is None:
        why = "needs in_channel, the channel of the raw volume that it follows: it is not clear which."
        _refuse(place, value["name"], why, write(place, {**value, "in_channel": 0}))
    if isinstance(channel, bool) or not isinstance(channel, int) or channel < 0:
        _refuse(f"{place}.in_channel", channel, "is not the number of a channel.", write(f"{place}.in_channel", 0))
    given = [key for key in ("intercept", "slope", "scale") if key in value]
    if not given and "spread" not in value:
        return Follow(fold(kind), channel)
    if len(given) < 3:
        missing = [key for key in ("intercept", "slope", "scale") if key not in value]
        fix = rewritten(place, {key: item for key, item in value.items() if key in ("name", "in_channel")})
        _refuse(place, value, f"has no {' and no '.join(missing)}; write all three numbers or none of them.", fix)
    numbers = {key: _number(f"{place}.{key}", value[key], 1.0) for key in (*given, *(["spread"] * ("spread" in value)))}
    for key in ("scale", "spread"):
        if key in numbers and numbers[key] < SMALLEST:
            _refuse(f"{place}.{key}", value[key], "is not above 0.", write(f"{place}.{key}", 1.0))
    return Follow(fold(kind), channel, Line(**numbers))


def _check_keys(place: str, value: Mapping[object, object]) -> None:
    if missing := [key for key in ("mean", "std") if key not in value]:
        _refuse(place, value, f"has no {' and no '.join(missing)}.")
    if more := [key for key in value if key not in ("mean", "std")]:
        fix = rewritten(place, {key: value[key] for key in ("mean", "std")})
        _refuse(place, value, f"has the key {reprlib.repr(more[0])}; the keys are mean and std.", fix)


def _per_channel(place: str, value: object, channels: int, filler: float) -> list[tuple[str, Any]]:
    """The number of each channel, and where it stands."""
    if not isinstance(value, list | tuple):
        return [(place, value)] * channels
    _check_length(place, value, channels, filler)
    return [(f"{place}[{i}]", number) for i, number in enumerate(value)]


def _check_length(place: str, value: Sequence[object], channels: int, filler: object) -> None:
    if len(value) != channels:
        entries = "entry" if len(value) == 1 else "entries"
        why = f"has {len(value)} {entries}, model.out_channels is {channels}; write one per output channel."
        _refuse(place, value, why, rewritten(place, fitted(value, channels, filler)) or write(place, filler))


def _numbers(mean: tuple[str, Any], std: tuple[str, Any]) -> Numbers:
    numbers = [_number(place, number, example) for (place, number), example in ((mean, 0.0), (std, 1.0))]
    if std[1] < SMALLEST:
        fix = write(std[0], -numbers[1] if -std[1] >= SMALLEST else 1.0)
        _refuse(std[0], std[1], "is not above 0: every output would be the mean.", fix)
    return Numbers(*numbers)


def _number(place: str, number: Any, example: float) -> float:
    fix = write(place, example, note="an example, in the units of the labels")
    if isinstance(number, bool) or not isinstance(number, Real):
        read = number_in(number)
        _refuse(place, number, f"is not a number{number_hint(number)}.", fix if read is None else write(place, read))
    value: Any = number
    if not abs(value) <= LARGEST:
        _refuse(place, number, "is too large for the network, or not a finite number.", fix)
    return single(float(value))


def spec_of(model_config: Mapping[str, object], channels: int) -> Spec | None:
    """Return the target scaling of a model section; None if it has no such key.

    Raises:
        ConfigError: it is not understood.
    """
    if KEY not in model_config:
        return None
    raws = model_config.get("in_channels")
    known = raws if isinstance(raws, int) and not isinstance(raws, bool) and raws > 0 else None
    spec = parse(model_config[KEY], channels, known)
    for term in spec.terms:
        if isinstance(term, Follow) and known is not None and term.in_channel >= known:
            why = f"has in_channel {term.in_channel}, but model.in_channels is {known}, and channels start at 0."
            _refuse(PLACE, model_config[KEY], why, write(PLACE, {**term.plain, "in_channel": known - 1}))
    return spec


def check_company(model_config: Mapping[str, object]) -> None:
    """Refuse a target scaling without a final activation.

    Raises:
        ConfigError: ``final_activation`` is missing.
    """
    if KEY in model_config and ACTIVATION not in model_config:
        raise ConfigError(
            PLACE,
            f"{reprlib.repr(model_config[KEY])} scales the final activation, but the config has no line "
            f"model.{ACTIVATION}. Write both, or neither if a checkpoint has both.",
            write(f"model.{ACTIVATION}", "none"),
        )


def _refuse(key: str, value: object, why: str, fix: Fix | None = None) -> NoReturn:
    raise ConfigError(key, f"{reprlib.repr(value)} {why} {_FORMS}", fix or write(key, "standardize"))
