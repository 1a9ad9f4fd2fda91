"""From the ``loss`` section of a config to a specification: pure data, nothing is built."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeGuard

from p3d_regression.errors import ConfigError
from p3d_regression.text import fold, short

#: The place of the loss that is not a part of another one.
WHOLE = "loss"

CHANNELWISE = "channelwise"
WEIGHTED_SUM = "weighted_sum"

#: What is made of several losses -> the key with the list of them.
COMPOSITES = {CHANNELWISE: "channels", WEIGHTED_SUM: "losses"}

#: Keys beside the name of a loss that are no arguments of it.
RESERVED = ("name", "ignore_index", "weight")

EXAMPLES = {
    CHANNELWISE: """  loss:
    name: channelwise
    channels:
      - {name: BCELoss}
      - {name: L1Loss, weight: 0.2}""",
    WEIGHTED_SUM: """  loss:
    name: weighted_sum
    losses:
      - {name: L1Loss}
      - {name: MSELoss, weight: 0.1}""",
}


@dataclass(frozen=True)
class Spec:
    """A loss as a config says it, not yet looked up.

    Attributes:
        name: as written; a key of :data:`COMPOSITES` in that spelling.
        place: where it stands, such as ``loss.channels[1]``.
        arguments: as written.
        weight: what it is multiplied with.
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
    if not isinstance(name, str):
        _refuse(place, section, "has no name.")
    weight = _weight(section.get("weight", 1.0), f"{place}.weight")
    if place != WHOLE and "ignore_index" in section:
        _refuse(
            f"{place}.ignore_index",
            section["ignore_index"],
            "stands beside the name of the whole loss, once.",
        )
    composite = next(
        (known for known in COMPOSITES if fold(name) in (fold(known), fold(known).replace("weighted", ""))), None
    )
    arguments = {str(key): value for key, value in section.items() if key not in RESERVED}
    if composite is None:
        return Spec(name, place, arguments, weight)
    key = COMPOSITES[composite]
    entries = arguments.pop(key, None)
    if arguments:
        _refuse(
            f"{place}.{short(next(iter(arguments)))}",
            next(iter(arguments.values())),
            f"{composite} takes {key} only.",
            composite,
        )
    if not isinstance(entries, list) or not entries:
        _refuse(f"{place}.{key}", entries, "is not a list of losses.", composite)
    parts = [_part(entry, f"{place}.{key}[{index}]", composite) for index, entry in enumerate(entries)]
    return Spec(composite, place, {}, weight, tuple(parts))


def _part(entry: object, place: str, composite: str) -> Spec:
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, Mapping):
        _refuse(place, entry, "is not a loss: a name, or a mapping with one.", composite)
    part = parse(entry, place)
    if part.name == CHANNELWISE:
        _refuse(place, entry, "channelwise stands outside: its entries have one channel each.", composite)
    return part


def _weight(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        hint = f" (YAML reads it as a text; write {float(value):g})" if _is_number(value) else ""
        _refuse(place, value, f"is not a number above 0, what this loss is multiplied with{hint}.", WEIGHTED_SUM)
    return float(value)


def _is_number(value: object) -> TypeGuard[str]:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _refuse(place: str, value: object, why: str, example: str = WEIGHTED_SUM) -> NoReturn:
    raise ConfigError(f"{place}: {reprlib.repr(value)} {why} Example:\n{EXAMPLES[example]}")
