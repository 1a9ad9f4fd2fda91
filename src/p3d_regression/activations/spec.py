"""From the value of ``model.final_activation`` in a config to a specification: pure data, nothing is built."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from p3d_regression.errors import ConfigError
from p3d_regression.text import fold

#: The key of upstream's ``model`` section that this project adds.
KEY = "final_activation"

EXAMPLE = "Example:\n  model:\n    name: UNet3D\n    final_activation: none"
_FORMS = (
    "Allowed: a name (final_activation: none), a name with arguments (final_activation: {name: softplus, beta: 2}), "
    "or a list with one of these per output channel (final_activation: [sigmoid, softplus])."
)


@dataclass(frozen=True)
class Term:
    """An activation as a config names it, not yet looked up.

    Attributes:
        name: as written.
        place: where it stands in the config, such as ``model.final_activation[1]``.
        arguments: as written.
    """

    name: str
    place: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """What a config says after ``final_activation:``.

    Attributes:
        terms: one for all channels, or one for each of them.
        per_channel: which of the two it is.
    """

    terms: tuple[Term, ...]
    per_channel: bool


def parse(value: object, channels: int | None = None) -> Spec:
    """Return the specification that ``value``, read from a config, stands for. No name is looked up.

    Args:
        value: a name; a mapping with the key ``name`` and arguments; or a list of these. None, which is YAML's
            ``null``, is the name none.
        channels: output channels of the model; None if that is not known.

    Raises:
        ConfigError: ``value`` has another form, or a list of another length; the message says what is allowed.

    >>> parse({"name": "softplus", "beta": 2}).terms[0].arguments
    {'beta': 2}
    >>> [term.name for term in parse(["sigmoid", None]).terms]
    ['sigmoid', 'none']
    """
    place = f"model.{KEY}"
    if not isinstance(value, list | tuple):
        return Spec((_term(value, place),), per_channel=False)
    # before any entry is looked at: a list of millions is refused at once
    if channels is not None and len(value) != channels:
        numbers = f"has {len(value)} {_plural('entry', 'entries', len(value))}, model.out_channels is {channels}"
        _refuse(place, value, f"{numbers}; a list has one entry per output channel.")
    if not value:
        _refuse(place, value, "is an empty list; it needs one entry per output channel.")
    return Spec(tuple(_term(entry, f"{place}[{i}]") for i, entry in enumerate(value)), per_channel=True)


def _term(value: object, place: str) -> Term:
    if value is None:
        return Term("none", place)
    if isinstance(value, str):
        return Term(value, place)
    if not isinstance(value, Mapping):
        _refuse_type(place, value)
    if "name" not in value:
        _refuse(place, value, f"is a mapping without the key name{_named(value)}")
    name = value["name"]
    if name is not None and not isinstance(name, str):
        _refuse_type(f"{place}.name", name)
    arguments = {key: argument for key, argument in value.items() if key != "name"}
    for key in arguments:
        if not isinstance(key, str):
            _refuse(place, value, f"has the key {reprlib.repr(key)}; the keys are name and the names of arguments.")
    return Term("none" if name is None else name, place, arguments)


def _named(value: Mapping[Any, object]) -> str:
    """The end of the sentence, with a suggestion for ``{softplus: {beta: 2}}`` and ``{type: softplus}``."""
    for key, name in value.items():
        if isinstance(key, str) and fold(key) in ("name", "type", "activation", "kind"):
            return f"; write name instead of {key}."
        if len(value) == 1 and isinstance(key, str) and (name is None or isinstance(name, Mapping)):
            arguments = list(name.items())[:3] if isinstance(name, Mapping) else []
            inside = [f", {str(argument)[:40]}: {reprlib.repr(given)}" for argument, given in arguments]
            return f"; did you mean {{name: {key[:40]}{''.join(inside)}}}?"
    return "."


def _refuse_type(place: str, value: object) -> NoReturn:
    if isinstance(value, bool):
        _refuse(place, value, "is a boolean (YAML reads no, off and false as one); for no activation write none.")
    kinds = {int: "number", float: "number", list: "list", tuple: "list", dict: "mapping"}
    kind = kinds.get(type(value), type(value).__name__)
    _refuse(place, value, f"is a {kind}, not the name of a final activation; for unbounded values write none.")


def _refuse(place: str, value: object, why: str) -> NoReturn:
    raise ConfigError(f"{place}: {reprlib.repr(value)} {why} {_FORMS} {EXAMPLE}")


def _plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many
