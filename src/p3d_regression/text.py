"""How values and names are written."""

import math
import reprlib


def as_yaml(value: object) -> str:
    """Plain data in one line of YAML, ready to be pasted into a config."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def fold(name: str) -> str:
    """A name as it is compared: case, underscores and hyphens do not matter.

    >>> fold("Leaky_ReLU") == fold("leaky-relu")
    True
    """
    return name.strip().lower().replace("_", "").replace("-", "")


def short(name: object) -> str:
    """A key of a config, in a message: not longer than it helps."""
    return reprlib.repr(name) if not isinstance(name, str) or len(name) > 40 else name
