"""From the value of ``model.final_activation`` in a config to a specification: pure data, nothing is built."""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from p3d_regression.activations.ranges import REAL_LINE, Interval
from p3d_regression.errors import ConfigError

#: The key of upstream's ``model`` section that this project adds.
KEY = "final_activation"

_EXAMPLE = "Example:\n  model:\n    name: UNet3D\n    final_activation: none"
_ALLOWED = "Allowed: none (also written identity, linear or null)."
_NAMES_OF_NONE = ("none", "identity", "linear", "null")


@dataclass(frozen=True)
class FinalActivation:
    """The function between a model's last convolution and its output.

    Attributes:
        name: canonical name, the same for every spelling a config may use.
        range: the values it can produce, in the units of the labels.
    """

    name: str
    range: Interval


NONE = FinalActivation("none", REAL_LINE)


def parse(value: object) -> FinalActivation:
    """Return the final activation that ``value``, read from a config, stands for.

    Args:
        value: a name (case, underscores and hyphens do not matter), or None, which is YAML's ``null``.

    Raises:
        ConfigError: ``value`` is not understood; the message says what is.

    >>> parse("Identity").name, parse(None).name
    ('none', 'none')
    >>> str(parse("linear").range)
    '(-inf, inf)'
    """
    if value is None:
        return NONE
    if not isinstance(value, str):
        _refuse_type(value)
    name = _plain(value)
    if name not in _NAMES_OF_NONE:
        nearest = get_close_matches(name, _NAMES_OF_NONE, n=1, cutoff=0.7)
        hint = f"did you mean {nearest[0]}?" if nearest else "for unbounded values write none."
        if name in ("sigmoid", "softmax"):
            hint = f"leave the key out for it and write final_sigmoid: {'true' if name == 'sigmoid' else 'false'}."
        _refuse(value, f"is not a known final activation; {hint}")
    return NONE


def check_keys(model_config: Iterable[object]) -> None:
    """Refuse a key of the model section that is almost ours: upstream would ignore it in silence.

    >>> check_keys(["name", "final_sigmoid", "final_activation", "f_maps"])

    Raises:
        ConfigError: one of the keys is a misspelled ``final_activation``.
    """
    for key in model_config:
        if isinstance(key, str) and key != KEY and get_close_matches(_plain(key), [_plain(KEY)], cutoff=0.85):
            raise ConfigError(f"model.{key}: upstream ignores this key; did you mean {KEY}? {_EXAMPLE}")


def check_sections(config: Mapping[object, object]) -> None:
    """Refuse our key outside the model section: nothing reads it there.

    Raises:
        ConfigError: the key stands at the top level or in another section.
    """
    places = [KEY] if KEY in config else []
    places += [f"{name}.{KEY}" for name, part in config.items() if name != "model" and _holds_key(part)]
    if places:
        raise ConfigError(f"{places[0]}: nothing reads this key here; move it into the section model. {_EXAMPLE}")


def _holds_key(part: object) -> bool:
    return isinstance(part, Mapping) and KEY in part


def _plain(name: str) -> str:
    """A name as it is compared: case, underscores and hyphens do not matter."""
    return name.strip().lower().replace("_", "").replace("-", "")


def _refuse_type(value: object) -> NoReturn:
    if isinstance(value, bool):
        _refuse(value, "is a boolean (YAML reads no, off and false as one); for no activation write none.")
    kinds = {int: "number", float: "number", list: "list", tuple: "list", dict: "mapping"}
    kind = kinds.get(type(value), type(value).__name__)
    _refuse(value, f"is a {kind}, not the name of a final activation; for unbounded values write none.")


def _refuse(value: object, why: str) -> NoReturn:
    raise ConfigError(f"model.{KEY}: {reprlib.repr(value)} {why} {_ALLOWED} {_EXAMPLE}")
