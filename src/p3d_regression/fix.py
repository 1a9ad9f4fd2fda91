"""Changes to a config that fix what was found in it: as data, applied to a config, and as lines to paste."""

import copy
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from p3d_regression.text import as_json, as_yaml


class _Delete(Enum):
    """One object in a process, also after it was copied or pickled."""

    DELETE = "delete"


#: In place of a value: the key is taken out of the config.
DELETE: Final = _Delete.DELETE

_SEGMENT = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True)
class Change:
    """A key of a config, and what it should be.

    Attributes:
        key: with dots; items of a list in brackets, such as ``loaders.train.transformer.label[1]``.
        value: plain data, or :data:`DELETE`.
        note: what the user has to know about a value that is an example: the end of its line. ``check --fix`` does not
            write examples.
    """

    key: str
    value: Any = DELETE
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"key": self.key} | ({"delete": True} if self.value is DELETE else {"value": as_json(self.value)})

    @property
    def path(self) -> tuple[str | int, ...]:
        """The key in its parts."""
        return tuple(int(index) if index else name for index, name in _SEGMENT.findall(self.key))


@dataclass(frozen=True)
class Fix:
    """What to do about a finding.

    Attributes:
        changes: to the config, all of them together.
        advice: what else to do, or what to do where no change to the config helps; a sentence, or lines of a plugin.
    """

    changes: tuple[Change, ...] = ()
    advice: str = ""

    def __bool__(self) -> bool:
        return bool(self.changes or self.advice)

    def __add__(self, other: "Fix") -> "Fix":
        return Fix(self.changes + other.changes, " ".join(filter(None, [self.advice, other.advice])))

    def __str__(self) -> str:
        """Lines of YAML to paste, below the sections that they belong to; or a sentence."""
        return "\n".join(filter(None, [_as_lines(self.changes), self.advice]))

    @property
    def in_one_line(self) -> str:
        """The same for a log."""
        tree = _tree(change for change in self.changes if change.value is not DELETE)
        written = as_yaml(_plain(tree))[1:-1] if tree else ""
        return " ".join("; ".join(filter(None, [written, _deletions(self.changes), _folded(self.advice)])).split())

    def applied_to(self, config: Any) -> Any:
        """Return a copy of a config with the changes in it."""
        changed = copy.deepcopy(config)
        self.apply_to(changed)
        return changed

    def apply_to(self, config: Any) -> None:
        """Make the changes in a config of dicts and lists. What is no section on the way to a key becomes one."""
        # items of a list from the last one on, so that a deleted one does not shift the others
        for change in sorted(self.changes, key=lambda c: [-p for p in c.path if isinstance(p, int)]):
            _apply(config, change)


#: Nothing to say.
NO_FIX: Final = Fix()


def write(key: str, value: Any, note: str = "") -> Fix:
    """Let a key have a value."""
    return Fix((Change(key, value, note),))


def delete(*keys: str) -> Fix:
    """Take keys out of a config."""
    return Fix(tuple(Change(key) for key in keys))


def advise(sentence: str) -> Fix:
    """Say what to do where no change to the config helps."""
    return Fix(advice=sentence)


def _folded(advice: str) -> str:
    """Lines of YAML, as a plugin may give them, in one line of YAML."""
    if "\n" in advice:
        import yaml

        with suppress(yaml.YAMLError):
            lines = yaml.safe_load(advice)
            return as_yaml(lines)[1:-1] if isinstance(lines, dict) else advice
    return advice


def _apply(config: Any, change: Change) -> None:
    *sections, last = change.path
    place = config
    for name, following in zip(sections, change.path[1:], strict=True):
        kind: type = list if isinstance(following, int) else dict
        if not _holds(place, name) or not isinstance(place[name], kind):
            if change.value is DELETE:
                return
            place[name] = kind()
        place = place[name]
    if change.value is DELETE:
        if _holds(place, last):
            del place[last]
    elif isinstance(place, list) and isinstance(last, int) and last >= len(place):
        place.append(copy.deepcopy(change.value))
    else:
        place[last] = copy.deepcopy(change.value)


def _holds(place: Any, name: str | int) -> bool:
    if isinstance(place, list):
        return isinstance(name, int) and name < len(place)
    return isinstance(place, dict) and name in place


@dataclass
class _Leaf:
    """A change at its place among others."""

    change: Change


def _tree(changes: Any) -> dict[str | int, Any]:
    """The changes below the sections that they share."""
    tree: dict[str | int, Any] = {}
    for change in changes:
        *sections, last = change.path
        place = tree
        for name in sections:
            place = place.setdefault(name, {})
        place[last] = _Leaf(change)
    return tree


def _plain(tree: Any) -> Any:
    if isinstance(tree, _Leaf):
        return tree.change.value
    if any(isinstance(name, int) for name in tree):
        return [_plain(part) for part in tree.values()]
    return {name: _plain(part) for name, part in tree.items()}


def _as_lines(changes: tuple[Change, ...]) -> str:
    if all(change.value is DELETE for change in changes):
        return _deletions(changes)
    return "\n".join(_lines(_tree(changes), ""))


def _deletions(changes: tuple[Change, ...]) -> str:
    keys = [change.key for change in changes if change.value is DELETE]
    return f"delete {' and '.join(keys)}" if keys else ""


def _lines(tree: dict[str | int, Any], indent: str) -> Iterator[str]:
    for name, part in tree.items():
        item = isinstance(name, int)
        if not isinstance(part, _Leaf):
            head = f"{indent}-  # item {name + 1}" if isinstance(name, int) else f"{indent}{as_yaml(name)}:"
            yield head
            yield from _lines(part, indent + "  ")
        elif part.change.value is DELETE:
            yield f"{indent}# delete {f'item {name + 1}' if isinstance(name, int) else name}"
        else:
            yield from _written(name, part.change, indent, item=item)


def _written(name: str | int, change: Change, indent: str, *, item: bool) -> Iterator[str]:
    start = "-" if item else f"{as_yaml(name)}:"
    note = change.note or (f"in place of item {int(name) + 1}" if item else "")
    comment = f"  # {note}" if note else ""
    if isinstance(change.value, list) and change.value and all(isinstance(part, dict) for part in change.value):
        yield f"{indent}{start}{comment}"
        yield from (f"{indent}  - {as_yaml(part)}" for part in change.value)
    else:
        yield f"{indent}{start} {as_yaml(change.value)}{comment}"
