"""How values and names are written."""

import math
import re
import reprlib
from contextlib import suppress
from typing import Any


def as_yaml(value: object) -> str:
    """Plain data in one line of YAML, ready to be pasted into a config."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def number_in(value: object) -> int | float | None:
    """The finite number in a text that YAML does not read as a number; None if there is none.

    >>> number_in("1e-3"), number_in("2"), number_in("two"), number_in(2.0)
    (0.001, 2, None, None)
    """
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    with suppress(ValueError):
        return int(str(value))
    return number


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


def number_hint(value: object) -> str:
    """The end of "is not a number" for a text that holds one; empty for any other value."""
    number = number_in(value)
    return "" if number is None else f" (YAML reads it as a text; write {as_yaml(number)})"


def fold(name: str) -> str:
    """A name as it is compared: case, spaces, underscores and hyphens do not matter.

    >>> fold("Leaky ReLU") == fold("leaky_relu") == fold("leaky-relu")
    True
    """
    return re.sub(r"[\s_-]", "", name).lower()


def short(name: object) -> str:
    """A key of a config, in a message: not longer than it helps."""
    return reprlib.repr(name) if not isinstance(name, str) or len(name) > 40 else name


def shortened(text: str) -> str:
    """A line that may be very long, cut in its middle."""
    return text if len(text) <= 300 else f"{text[:290]} ... {text[-5:]}"


def first_sentence(cls: type) -> str:
    """What the docstring of a class begins with, without markup; its name where it has none.

    >>> first_sentence(type("A", (), {"__doc__": "Compute the `Square`_ of :math:`x`. And more."}))
    'compute the Square of x'
    """
    text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text)
    text = re.sub(r"\s*<[^>]*>|[`_*]+(?=\W|$)|[`*]+|\.\. math::.*|\$", "", text)
    sentence = re.split(r"(?<=[^\d])\.(?:\s|$)|:$", text)[0].strip()
    return (sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence) or cls.__name__


def as_size(count: int) -> str:
    """A number of bytes.

    >>> as_size(3 * 2**29), as_size(5000)
    ('1.5 GiB', '4.883 KiB')
    """
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
