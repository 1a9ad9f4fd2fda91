"""The valid name that was meant, and the fix that writes it with the user's value."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from p3d_regression.fix import NO_FIX, Fix, delete, write
from p3d_regression.text import as_yaml, fold

#: Words of other frameworks' options, and pytorch-3dunet's words for them.
_WORDS = {"every": "after", "interval": "after", "val": "validate", "valid": "validate", "validation": "validate"}
_WORDS |= {"steps": "iterations", "lr": "learning_rate", "wd": "weight_decay"}


def nearest(name: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that was meant: one that has all words of the given name in their order, or one that is spelled alike.

    >>> trainer = ["max_num_epochs", "validate_after_iters", "validate_iters", "num_epoch"]
    >>> nearest("validate_every", trainer), nearest("epochs", trainer), nearest("max_num_epoch", trainer)
    ('validate_after_iters', 'max_num_epochs', 'max_num_epochs')
    >>> nearest("totensor", ["ToTensor"]), nearest("pony", ["ToTensor"])
    ('ToTensor', None)
    """
    folded = {fold(candidate): candidate for candidate in known}
    if not isinstance(name, str) or fold(name) in folded:
        return folded.get(fold(str(name)))
    words = "_".join(_WORDS.get(word, word) for word in name.lower().split("_"))
    pattern = re.compile(rf"(.*_)?{'_(.*_)?'.join(map(re.escape, words.split('_')))}(_.*)?")
    having = [candidate for candidate in folded.values() if pattern.fullmatch(candidate)]
    if len(having) == 1:
        return having[0]
    return next((folded[match] for match in get_close_matches(fold(name), folded, n=1, cutoff=cutoff)), None)


def unknown(name: object, names: list[str], key: str, kind: str, example: str) -> tuple[str, Fix]:
    """Message and fix for a name that pytorch-3dunet does not know; the example is for one that is like no other."""
    meant = nearest(name, names)
    said = "is missing" if name is None else f"{as_yaml(name)} is not {kind}"
    listed = f"valid names are {', '.join(names)}"
    return f"{said}; {f'did you mean {meant}?' if meant else listed}", write(key, meant or example)


def section(place: str, lines: Mapping[str, Any]) -> Fix:
    """Write a section that is missing, each of its lines on its own."""
    return sum((write(f"{place}.{key}", value) for key, value in lines.items()), NO_FIX)


def renamed(place: str, lines: Mapping[Any, Any], key: object, name: str | None, value: Any = None) -> Fix:
    """Move the value of a key to the name that was meant; delete the key where there is none, or it has a value."""
    if name is None or name in lines:
        return removed(place, lines, key)
    return write(f"{place}.{name}", lines[key] if value is None else value) + removed(place, lines, key)


def removed(place: str, lines: Mapping[Any, Any], key: object) -> Fix:
    """Delete a key, also one that is no text, such as 1 or null, or that has a dot in it."""
    if isinstance(key, str) and re.fullmatch(r"[^.\[\]]+", key):
        return delete(f"{place}.{key}")
    return write(place, {other: value for other, value in lines.items() if other is not key})
