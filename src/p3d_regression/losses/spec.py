"""From the ``loss`` section of a config to a specification: pure data, nothing is built."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, delete, write
from p3d_regression.text import fold, number_in, short

#: The place of the loss that is not a part of another one.
WHOLE = "loss"

CHANNELWISE = "channelwise"
WEIGHTED_SUM = "weighted_sum"

#: What is made of several losses -> the key with the list of them.
COMPOSITES = {CHANNELWISE: "channels", WEIGHTED_SUM: "losses"}

#: Names of them, folded.
_NAMES = {fold(CHANNELWISE): CHANNELWISE, fold(WEIGHTED_SUM): WEIGHTED_SUM, "sum": WEIGHTED_SUM}

#: Keys of a loss that are no arguments of it.
RESERVED = ("name", "ignore_index", "weight")

#: Lists of losses.
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    CHANNELWISE: [{"name": "BCELoss"}, {"name": "L1Loss", "weight": 0.2}],
    WEIGHTED_SUM: [{"name": "L1Loss"}, {"name": "MSELoss", "weight": 0.1}],
}


@dataclass(frozen=True)
class Spec:
    """A loss as a config says it, not yet looked up.

    Attributes:
        name: as written; a key of :data:`COMPOSITES` in that spelling; empty where there is no text.
        place: where it stands, such as ``loss.channels[1]``.
        arguments: as written.
        weight: the factor of this loss.
        parts: what it is made of.
    """

    name: str
    place: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    weight: float = 1.0
    parts: "tuple[Spec, ...]" = ()


def parse(section: Mapping[Any, object], place: str = WHOLE) -> Spec:
    """Return what a ``loss`` section, or an entry of a list in it, says. No name is looked up.

    Raises:
        ConfigError: a key or a value has another form; the message says what is allowed.

    >>> parse({"name": "HuberLoss", "delta": 2.0}).arguments
    {'delta': 2.0}
    """
    name = section.get("name")
    weight = _weight(section.get("weight", 1.0), f"{place}.weight")
    if place != WHOLE and "ignore_index" in section:
        key = f"{place}.ignore_index"
        raise ConfigError(key, "it applies to the whole loss: write it directly below loss.", delete(key))
    arguments = {str(key): value for key, value in section.items() if key not in RESERVED}
    composite = _NAMES.get(fold(name)) if isinstance(name, str) else None
    if composite is None:
        return Spec(name if isinstance(name, str) else "", place, arguments, weight)
    return Spec(composite, place, {}, weight, _parts(composite, arguments, place))


def _parts(composite: str, arguments: Mapping[str, object], place: str) -> tuple[Spec, ...]:
    key = COMPOSITES[composite]
    others = [name for name in arguments if name != key]
    if others:
        raise ConfigError(
            f"{place}.{short(others[0])}",
            f"{reprlib.repr(arguments[others[0]])}: {composite} takes {key} only.",
            delete(*(f"{place}.{name}" for name in others)),
        )
    entries = arguments.get(key)
    if not isinstance(entries, list) or not entries:
        example = [dict(entries)] if isinstance(entries, Mapping) and "name" in entries else EXAMPLES[composite]
        why = f"{reprlib.repr(entries)} is not a list of losses."
        raise ConfigError(f"{place}.{key}", why, write(f"{place}.{key}", example))
    return tuple(_part(entry, f"{place}.{key}[{index}]") for index, entry in enumerate(entries))


def _part(entry: object, place: str) -> Spec:
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, Mapping):
        why = f"{reprlib.repr(entry)} is not a loss: a name, or a mapping with one."
        raise ConfigError(place, why, write(place, EXAMPLES[WEIGHTED_SUM][0]))
    part = parse(entry, place)
    if part.name == CHANNELWISE:
        why = "channelwise applies to the whole loss and cannot be an entry of a list."
        raise ConfigError(place, why, write(place, EXAMPLES[WEIGHTED_SUM][0]))
    return part


def composite_meant(spec: Spec) -> tuple[str, Fix] | None:
    """The loss made of others that an unknown one is close to, by its name or its list; and how to write it."""
    lists = {
        composite: entries
        for composite, key in COMPOSITES.items()
        if isinstance(entries := spec.arguments.get(key), list) and any(isinstance(e, str | Mapping) for e in entries)
    }
    near = get_close_matches(fold(spec.name[:100]), list(_NAMES), n=1, cutoff=0.7)
    meant = _NAMES[near[0]] if near else next(iter(lists), None)
    if meant is None:
        return None
    key = COMPOSITES[meant]
    fix = write(f"{spec.place}.name", meant)
    fix += delete(*(f"{spec.place}.{name}" for name in spec.arguments if name != key))
    if meant not in lists:
        fix += write(f"{spec.place}.{key}", next(iter(lists.values()), EXAMPLES[meant]))
    return meant, fix


def _weight(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        number = number_in(value)
        hint = f" (YAML reads it as a text; write {number:g})" if number else ""
        why = f"{reprlib.repr(value)} is not a number above 0, the factor of this loss{hint}."
        raise ConfigError(place, why, write(place, number) if number and number > 0 else delete(place))
    return float(value)
