"""A config as lines, each with its reason."""

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from p3d_regression.fix import DELETE, Change, Fix
from p3d_regression.text import as_yaml


@dataclass(frozen=True)
class Line:
    """A key of a config.

    Attributes:
        key: with dots.
        value: plain data.
        why: this value; empty where it needs no reason.
    """

    key: str
    value: Any
    why: str = ""


class Plan:
    """The lines of a config, in their order.

    Args:
        lines: each key once.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = {line.key: line for line in lines}

    @property
    def lines(self) -> list[Line]:
        return list(self._lines.values())

    @property
    def config(self) -> dict[str, Any]:
        """As pytorch-3dunet reads it."""
        found: dict[str, Any] = {}
        Fix(tuple(Change(line.key, line.value) for line in self._lines.values())).apply_to(found)
        return found

    def get(self, key: str) -> Any:
        """The value of a line; None if there is none."""
        line = self._lines.get(key)
        return line.value if line else None

    def apply(self, fix: Fix, why: str) -> None:
        """Change what a fix changes.

        Args:
            fix: of a finding.
            why: what was found.
        """
        for change in fix.changes:
            key = next(
                (key for key in self._lines if change.key == key or re.match(re.escape(key) + r"[.\[]", change.key)),
                None,
            )
            if key is None and change.value is not DELETE:
                self._lines[change.key] = Line(change.key, change.value, why)
            elif key == change.key and change.value is DELETE:
                del self._lines[key]
            elif key is not None:
                rest = change.key[len(key) :].removeprefix(".")
                held = {"value": copy.deepcopy(self._lines[key].value)}
                place = f"value{'.' if rest and not rest.startswith('[') else ''}{rest}"
                Fix((Change(place, change.value),)).apply_to(held)
                self._lines[key] = Line(key, held["value"], why)

    def text(self, head: str) -> str:
        """As YAML, with the reasons as comments.

        Args:
            head: lines of a comment that comes first.
        """
        tree: dict[str, Any] = {}
        for line in self._lines.values():
            *sections, last = line.key.split(".")
            place = tree
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = line
        return "".join(f"# {part}\n" if part else "#\n" for part in head.splitlines()) + _written(tree, "")


def _written(tree: Mapping[str, Any], indent: str) -> str:
    text = ""
    for name, part in tree.items():
        if isinstance(part, Line):
            text += _one(f"{indent}{name}:", part, indent)
        else:
            text += f"{indent}{name}:\n{_written(part, indent + '  ')}"
    return text


#: A list of more items has one on each line.
_FEW = 80


def _one(start: str, line: Line, indent: str) -> str:
    value, comment = line.value, f"  # {line.why}" if line.why else ""
    in_one = as_yaml(value)
    is_list = isinstance(value, list) and bool(value)
    if is_list and (any(isinstance(item, Mapping) for item in value) or len(in_one) > _FEW):
        items = "".join(f"{indent}  - {as_yaml(item)}\n" for item in value)
        return f"{start}{comment}\n{items}"
    return f"{start} {in_one}{comment}\n"
