"""From the value of ``model.target_scaling`` in a config to a specification: pure data, nothing is measured."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Any, NoReturn

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.errors import ConfigError
from p3d_regression.text import fold

#: The key of upstream's ``model`` section.
KEY = "target_scaling"

PLACE = f"model.{KEY}"
EXAMPLE = f"Example:\n  model:\n    final_activation: none\n    {KEY}: standardize"
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
    def is_measured(self) -> bool:
        """Whether the training labels say what some of it is."""
        return None in self.terms


def parse(value: object, channels: int) -> Spec:
    """Return the specification that ``value``, read from a config, stands for.

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
        _check_length(PLACE, value, channels)
        return Spec(tuple(_term(entry, f"{PLACE}[{i}]") for i, entry in enumerate(value)))
    if isinstance(value, Mapping):
        _check_keys(PLACE, value)
        means, stds = (_per_channel(f"{PLACE}.{key}", value[key], channels) for key in ("mean", "std"))
        return Spec(tuple(_numbers(value, PLACE, *pair) for pair in zip(means, stds, strict=True)))
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
        _refuse(place, value, f"means nothing here{f'; did you mean {near[0]}?' if near else '.'}")
    if isinstance(value, bool):
        _refuse(place, value, "is a boolean (YAML reads no, off and false as one); write standardize or none.")
    if isinstance(value, Mapping):
        _check_keys(place, value)
        return _numbers(value, place, value["mean"], value["std"])
    _refuse(place, value, "is not understood.")


def _check_keys(place: str, value: Mapping[object, object]) -> None:
    if missing := [key for key in ("mean", "std") if key not in value]:
        _refuse(place, value, f"has no {' and no '.join(missing)}.")
    if more := [key for key in value if key not in ("mean", "std")]:
        _refuse(place, value, f"has the key {reprlib.repr(more[0])}; the keys are mean and std.")


def _per_channel(place: str, value: object, channels: int) -> list[object]:
    if not isinstance(value, list | tuple):
        return [value] * channels
    _check_length(place, value, channels)
    return list(value)


def _check_length(place: str, value: list[object] | tuple[object, ...], channels: int) -> None:
    if len(value) != channels:
        entries = "entry" if len(value) == 1 else "entries"
        _refuse(
            place, value, f"has {len(value)} {entries}, model.out_channels is {channels}; write one per output channel."
        )


def _numbers(whole: object, place: str, mean: Any, std: Any) -> Numbers:
    pairs: list[tuple[str, Any]] = [("mean", mean), ("std", std)]
    for key, number in pairs:
        if isinstance(number, bool) or not isinstance(number, Real):
            why = "is not a number"
            # YAML 1.1 takes 1e-3 for a text
            why += "; write it with a point: 1.0e-3." if isinstance(number, str) and "e" in number.lower() else "."
            _refuse(f"{place}.{key}", number, why)
        size: Any = abs(number)
        if not size <= LARGEST:
            _refuse(f"{place}.{key}", number, "is no number that the network can compute with.")
    if std < SMALLEST:
        _refuse(f"{place}.std", std, "is not above 0: every output would be the mean.")
    return Numbers(single(float(mean)), single(float(std)))


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
    """Return what a model section says of a target scaling; None if it says nothing.

    Raises:
        ConfigError: it is not understood.
    """
    return parse(model_config[KEY], channels) if KEY in model_config else None


def check_company(model_config: Mapping[str, object]) -> None:
    """Refuse a target scaling of an activation that is not named.

    Raises:
        ConfigError: ``final_activation`` is missing beside it.
    """
    if KEY in model_config and ACTIVATION not in model_config:
        raise ConfigError(
            f"{PLACE}: {reprlib.repr(model_config[KEY])} scales the final activation, and there is no line "
            f"model.{ACTIVATION} that says which. Write both; or neither, where a checkpoint brings both. {EXAMPLE}"
        )


def _refuse(place: str, value: object, why: str) -> NoReturn:
    raise ConfigError(f"{place}: {reprlib.repr(value)} {why} {_FORMS} {EXAMPLE}")
