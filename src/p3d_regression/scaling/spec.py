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
from p3d_regression.text import fold, number_hint, number_in

#: The key of the ``model`` section.
KEY = "target_scaling"

PLACE = f"model.{KEY}"
_FORMS = (
    "Allowed: standardize (mean and standard deviation of the training labels), none, {mean: 12.5, std: 13} in the "
    "units of the labels, or a list with one of these per output channel; mean and std may be lists as well."
)


@dataclass(frozen=True)
class Numbers:
    """Of one output channel, in the units of the labels."""

    mean: float
    std: float


#: Leaves a channel as it is.
IDENTITY = Numbers(0.0, 1.0)


@dataclass(frozen=True)
class Spec:
    """What a config says after ``target_scaling:``.

    Attributes:
        terms: one per output channel; None for what has to be measured.
    """

    terms: tuple[Numbers | None, ...]

    @property
    def plain(self) -> object:
        """As a config says it."""
        terms = [
            "standardize" if term is None else "none" if term == IDENTITY else {"mean": term.mean, "std": term.std}
            for term in self.terms
        ]
        return terms[0] if all(term == terms[0] for term in terms) else terms

    @property
    def is_measured(self) -> bool:
        """Whether some of it has to be measured on the training labels."""
        return None in self.terms


def parse(value: object, channels: int) -> Spec:
    """Return the specification for a value in a config.

    Args:
        value: ``standardize``; ``none`` or None; a mapping with ``mean`` and ``std``; or a list of these.
        channels: output channels of the model.

    Raises:
        ConfigError: ``value`` has another form, or a list of another length; the message says what is allowed.

    >>> parse("standardize", 2).terms
    (None, None)
    >>> parse({"mean": [12.5, 0], "std": [13, 1]}, 2).terms
    (Numbers(mean=12.5, std=13.0), Numbers(mean=0.0, std=1.0))
    """
    if isinstance(value, list | tuple):
        _check_length(PLACE, value, channels, "none")
        return Spec(tuple(_term(entry, f"{PLACE}[{i}]") for i, entry in enumerate(value)))
    if isinstance(value, Mapping):
        _check_keys(PLACE, value)
        means = _per_channel(f"{PLACE}.mean", value["mean"], channels, 0.0)
        return Spec(tuple(map(_numbers, means, _per_channel(f"{PLACE}.std", value["std"], channels, 1.0))))
    return Spec((_term(value, PLACE),) * channels)


def _term(value: object, place: str) -> Numbers | None:
    if value is None:
        return IDENTITY
    if isinstance(value, str):
        if fold(value) in ("standardize", "standardise"):
            return None
        if fold(value) == "none":
            return IDENTITY
        near = get_close_matches(fold(value), ["standardize", "none"], n=1)
        why = f"is not known; did you mean {near[0]}?" if near else "is not known."
        _refuse(place, value, why, write(place, near[0]) if near else None)
    if isinstance(value, bool):
        fix = write(place, "standardize" if value else "none")
        _refuse(place, value, "is a boolean (YAML reads no, off and false as one); write standardize or none.", fix)
    if isinstance(value, Mapping):
        _check_keys(place, value)
        return _numbers((f"{place}.mean", value["mean"]), (f"{place}.std", value["std"]))
    _refuse(place, value, "is not understood.")


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
    for (place, number), example in ((mean, 0.0), (std, 1.0)):
        fix = write(place, example, note="an example, in the units of the labels")
        if isinstance(number, bool) or not isinstance(number, Real):
            read = number_in(number)
            _refuse(
                place, number, f"is not a number{number_hint(number)}.", fix if read is None else write(place, read)
            )
        value: Any = number
        if not abs(value) <= LARGEST:
            _refuse(place, number, "is too large for the network, or not a finite number.", fix)
        if place == std[0] and value < SMALLEST:
            fix = write(place, float(-value)) if -value >= SMALLEST else fix
            _refuse(place, number, "is not above 0: every output would be the mean.", fix)
    return Numbers(single(float(mean[1])), single(float(std[1])))


#: Of float32, in which the network computes.
LARGEST = 3.4e38
SMALLEST = 1.2e-38


def single(value: float) -> float:
    """As float32, in which the network computes, with no more digits than that has: a line of the log can be pasted.

    >>> single(1 / 3), single(12.5)
    (0.33333334, 12.5)
    """
    import numpy as np

    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def spec_of(model_config: Mapping[str, object], channels: int) -> Spec | None:
    """Return the target scaling of a model section; None if it has no such key.

    Raises:
        ConfigError: it is not understood.
    """
    return parse(model_config[KEY], channels) if KEY in model_config else None


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
