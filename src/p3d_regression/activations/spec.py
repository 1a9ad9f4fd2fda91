"""The value of ``model.final_activation`` as a specification: pure data, nothing is built."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, write
from p3d_regression.text import as_yaml, fold

#: The key of the ``model`` section.
KEY = "final_activation"

PLACE = f"model.{KEY}"

_FORMS = (
    "Allowed: a name, such as softplus; a name with arguments, such as {name: softplus, beta: 2}; or a list with one "
    "of these per output channel."
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
    """Return the specification for a value in a config. No name is looked up.

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
    if isinstance(value, str) and "," in value and "(" not in value:
        value = [name.strip() for name in value.strip("[] ").split(",")]
        fix = rewritten(PLACE, fitted(value, channels or len(value), "none"))
        _refuse(PLACE, ", ".join(value), "is a text; a list of activations is written in brackets.", fix)
    if not isinstance(value, list | tuple):
        return Spec((_term(value, PLACE),), per_channel=False)
    # before any entry is looked at: a list of millions is refused at once
    if channels is not None and len(value) != channels:
        entries = "entry" if len(value) == 1 else "entries"
        why = f"has {len(value)} {entries}, model.out_channels is {channels}; a list has one entry per output channel."
        _refuse(PLACE, value, why, rewritten(PLACE, fitted(value, channels, "none")))
    if not value:
        _refuse(PLACE, value, "is an empty list; a list has one entry per output channel.")
    return Spec(tuple(_term(entry, f"{PLACE}[{i}]") for i, entry in enumerate(value)), per_channel=True)


def fitted(entries: Sequence[object], channels: int, filler: object) -> object:
    """Return a list of a config with as many entries as there are channels; a single entry counts for all channels.

    >>> fitted(["relu", "tanh"], 3, "none"), fitted(["relu"], 3, "none"), fitted(["relu", "tanh"], 1, "none")
    (['relu', 'tanh', 'none'], 'relu', 'relu')
    """
    if entries and 1 in (len(entries), channels):
        return entries[0]
    return [*entries[:channels], *[filler] * (channels - len(entries))]


def _term(value: object, place: str) -> Term:
    if value is None:
        return Term("none", place)
    if isinstance(value, str):
        return Term(value, place)
    if not isinstance(value, Mapping):
        _refuse_type(place, value, place)
    if "name" not in value:
        _refuse_unnamed(value, place)
    name = value["name"]
    if name is not None and not isinstance(name, str):
        _refuse_type(f"{place}.name", name, place)
    arguments = {key: argument for key, argument in value.items() if key != "name"}
    for key in arguments:
        if not isinstance(key, str):
            fix = rewritten(place, {key: part for key, part in value.items() if isinstance(key, str)})
            why = f"has the key {reprlib.repr(key)}; the keys are name and the names of arguments."
            _refuse(place, value, why, fix)
    return Term("none" if name is None else name, place, arguments)


def _refuse_unnamed(value: Mapping[Any, object], place: str) -> NoReturn:
    """With a suggestion for ``{softplus: {beta: 2}}`` and ``{type: softplus}``."""
    why, fix = "is a mapping without the key name", None
    for key, name in value.items():
        if isinstance(key, str) and fold(key) in ("name", "type", "activation", "kind"):
            why += f"; write name instead of {key}"
            fix = rewritten(place, {"name": name, **{other: part for other, part in value.items() if other != key}})
            break
        if len(value) == 1 and isinstance(key, str) and (name is None or isinstance(name, Mapping)):
            fix = rewritten(place, {"name": key, **name} if name else key)
    _refuse(place, value, f"{why}.", fix)


def rewritten(place: str, value: object) -> Fix | None:
    """What the user has written, in another form; None if it is not plain data, or too long for a line."""
    import yaml

    try:
        return write(place, value) if len(as_yaml(value)) < 500 else None
    except (yaml.YAMLError, RecursionError):
        return None


def _refuse_type(key: str, value: object, place: str) -> NoReturn:
    fix = write(place, "none")
    if isinstance(value, bool):
        _refuse(key, value, "is a boolean (YAML reads no, off and false as one); for no activation write none.", fix)
    kinds = {int: "number", float: "number", list: "list", tuple: "list", dict: "mapping"}
    kind = kinds.get(type(value), type(value).__name__)
    _refuse(key, value, f"is a {kind}, not the name of a final activation; for unbounded values write none.", fix)


def _refuse(key: str, value: object, why: str, fix: Fix | None = None) -> NoReturn:
    raise ConfigError(key, f"{reprlib.repr(value)} {why} {_FORMS}", fix or write(key, "none"))
