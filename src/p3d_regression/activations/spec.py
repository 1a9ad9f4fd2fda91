"""From the value of ``model.final_activation`` in a config to a specification: pure data, nothing is built."""

import reprlib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from p3d_regression.activations.ranges import REAL_LINE, Interval
from p3d_regression.errors import ConfigError

#: The key of upstream's ``model`` section that this project adds.
KEY = "final_activation"

_EXAMPLE = "Example:\n  model:\n    name: UNet3D\n    final_activation: none"
_ALLOWED = "Allowed: none (also written identity, linear or null)."
_CANONICAL = {"none": "none", "identity": "none", "linear": "none"}


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
    name = value.strip().lower().replace("_", "").replace("-", "")
    if name not in _CANONICAL:
        nearest = get_close_matches(name, _CANONICAL, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else "for unbounded values write none."
        _refuse(value, f"is not a known final activation; {hint}")
    return NONE


def _refuse_type(value: object) -> NoReturn:
    if isinstance(value, bool):
        _refuse(value, "is a boolean (YAML reads no, off and false as one); for no activation write none.")
    kinds = {int: "number", float: "number", list: "list", tuple: "list", dict: "mapping"}
    kind = kinds.get(type(value), type(value).__name__)
    _refuse(value, f"is a {kind}, not the name of a final activation; for unbounded values write none.")


def _refuse(value: object, why: str) -> NoReturn:
    raise ConfigError(f"model.{KEY}: {reprlib.repr(value)} {why} {_ALLOWED} {_EXAMPLE}")
