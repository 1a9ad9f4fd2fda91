"""Changes in the text of a config: comments, order and all other lines stay as they are."""

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import chain
from typing import Any

import yaml

from p3d_regression.fix import DELETE, Change, Fix
from p3d_regression.text import as_yaml

#: Indentation of mappings and lists, and of the dash within it, as people write YAML.
_INDENTATIONS = [(2, 2, 0), (2, 4, 2), (4, 4, 0), (4, 4, 2), (4, 6, 4)]


class UnchangeableError(ValueError):
    """The text cannot be changed as asked; the message says why."""


def changed(text: str, fix: Fix) -> str:
    """Return the text of a config with the changes of a fix.

    ruamel.yaml makes the changes; every line that they do not touch is taken from the text itself.

    Raises:
        UnchangeableError: read as pytorch-3dunet reads it, the result would not be what the fix asks for.
    """
    from ruamel.yaml.error import YAMLError

    try:
        wanted = fix.applied_to(yaml.safe_load(text))
        parser, before = _parser(text)
        config = parser.load(text)
        _apply(config, _styled(fix, parser))
        result = "".join(_merged(text.splitlines(True), before.splitlines(True), _dumped(parser, config)))
        is_right = _same(yaml.safe_load(result), wanted) and _comments(text.splitlines()) <= _comments(
            result.splitlines()
        )
    except (yaml.YAMLError, YAMLError, RecursionError, KeyError, NotImplementedError) as error:
        raise UnchangeableError(f"the text cannot be changed: {' '.join(str(error).split())}") from error
    if not is_right:
        keys = ", ".join(change.key for change in fix.changes)
        raise UnchangeableError(f"{keys} cannot be changed without another part of the text")
    return result


def _parser(text: str) -> tuple[Any, str]:
    """A parser with the indentation of a text, and the text as it writes it."""
    from ruamel.yaml import YAML

    attempts = []
    for mapping, sequence, offset in _INDENTATIONS:
        parser = YAML()
        parser.indent(mapping, sequence, offset)
        parser.preserve_quotes = True
        parser.width = 10**6
        parser.explicit_start = any(line.split()[:1] == ["---"] for line in text.splitlines())
        parser.explicit_end = any(line.split() == ["..."] for line in text.splitlines())
        written = "".join(_dumped(parser, parser.load(text)))
        same = sum(one == other for one, other in zip(text.splitlines(), written.splitlines(), strict=False))
        attempts.append((same, parser, written))
    _, parser, written = max(attempts, key=lambda attempt: attempt[0])
    return parser, written


def _dumped(parser: Any, config: Any) -> list[str]:
    stream = io.StringIO()
    parser.dump(config, stream)
    return stream.getvalue().splitlines(True)


def _styled(fix: Fix, parser: Any) -> Fix:
    """A fix with its values as the parser writes them: sections in lines of their own, short things in one line."""
    changes = [
        change if change.value is DELETE else replace(change, value=_in_lines(parser.load(as_yaml([change.value]))[0]))
        for change in fix.changes
    ]
    return Fix(tuple(changes))


def _in_lines(value: Any) -> Any:
    node = value  # of ruamel.yaml
    if isinstance(value, dict) and value:
        node.fa.set_block_style()
        for part in value.values():
            _in_lines(part)
    elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        node.fa.set_block_style()
    return value


def _apply(config: Any, fix: Fix) -> None:
    """Make the changes; a key that only gets another name keeps its place and its comment."""
    for old in fix.changes:
        parent, _, name = old.key.rpartition(".")
        for new in fix.changes if old.value is DELETE else ():
            section, _, new_name = new.key.rpartition(".")
            place = _at(config, old.path[:-1])
            if section == parent and new.value is not DELETE and name in place and new_name not in place:
                place.insert(list(place).index(name), new_name, new.value)
                if name in place.ca.items:
                    place.ca.items[new_name] = place.ca.items.pop(name)
                del place[name]
    Fix(tuple(chain.from_iterable(_spread(change, config) for change in fix.changes))).apply_to(config)


def _spread(change: Change, config: Any) -> Iterator[Change]:
    """A section in place of another: its lines one by one, so that those that stay keep their comments."""
    old, new = _at(config, change.path), change.value
    if not isinstance(new, dict) or not old or not all(isinstance(k, str) and "." not in k for k in (*old, *new)):
        yield change
        return
    for name, value in new.items():
        yield from _spread(Change(f"{change.key}.{name}", value), config)
    yield from (Change(f"{change.key}.{name}") for name in old if name not in new)


def _at(config: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        config = config[name] if isinstance(config, dict) and name in config else {}
    return config if isinstance(config, dict) else {}


def _merged(original: list[str], before: list[str], after: list[str]) -> list[str]:
    """The lines of ``after`` that are not in ``before``, among the original lines; no line of comment is dropped."""
    if len(original) != len(before):
        return after
    newline = "\r\n" if original[0].endswith("\r\n") else "\n"
    lines: list[str] = []
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            lines += original[a:b]
            continue
        new = [line.rstrip("\r\n") + newline for line in after[c:d]]
        # what is added to the end of a section stands above the comments of the next one
        end = len(lines)
        while kind == "insert" and end and lines[end - 1].strip()[:1] in ("", "#"):
            end -= 1
        if end and not lines[end - 1].endswith("\n"):
            lines[end - 1] += newline
        lines[end:end] = new
        lines += [line for line in original[a:b] if line.lstrip()[:1] == "#" and line.strip() not in _comments(new)]
    return lines


def _comments(lines: list[str]) -> set[str]:
    return {line.strip() for line in lines if line.lstrip()[:1] == "#"}


def _same(one: Any, other: Any) -> bool:
    """Whether plain data are equal; NaN is itself here, and true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)
