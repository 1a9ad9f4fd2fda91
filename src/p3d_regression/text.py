"""How values and names are written."""

import math
import reprlib
from typing import Any


def as_yaml(value: object) -> str:
    """Plain data in one line of YAML, ready to be pasted into a config."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def as_json(value: object) -> Any:
    """Plain data of YAML as JSON has it: what JSON has no word for, such as ``.nan`` and dates, becomes a text.

    >>> as_json({1: [float("nan"), 2.5]})
    {'1': ['.nan', 2.5]}
    """
    match value:
        case dict():
            return {str(key): as_json(part) for key, part in value.items()}
        case list() | tuple() | set():
            return [as_json(part) for part in value]
        case float() if not math.isfinite(value):
            return as_yaml(value)
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def fold(name: str) -> str:
    """A name as it is compared: case, underscores and hyphens do not matter.

    >>> fold("Leaky_ReLU") == fold("leaky-relu")
    True
    """
    return name.strip().lower().replace("_", "").replace("-", "")


def short(name: object) -> str:
    """A key of a config, in a message: not longer than it helps."""
    return reprlib.repr(name) if not isinstance(name, str) or len(name) > 40 else name
