"""What a rule is, and what it finds."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from p3d_regression.errors import Found
from p3d_regression.fix import Fix
from p3d_regression.text import as_yaml

Severity = Literal["error", "warning"]
Mode = Literal["train", "predict"]

#: For which configs a rule is meant, where it is not training configs alone.
BOTH: tuple[Mode, ...] = ("train", "predict")
PREDICT: tuple[Mode, ...] = ("predict",)

#: What a rule looks at: the config alone; files that it names, without reading volumes; or the volumes.
Needs = Literal["config", "files", "volumes"]


#: Given a :class:`~p3d_regression.checks.view.View`.
Check = Callable[[Any], Iterable[Found]]


@dataclass(frozen=True)
class Rule:
    """One way in which a config goes wrong.

    Attributes:
        code: stable, letters and three digits; ``P3D`` is this project's own.
        name: in words with hyphens.
        severity: ``error`` if what comes out would be wrong or nothing would come out, else ``warning``.
        check: returns what it finds in a config.
        why: what happens in upstream, and why nobody notices; Markdown.
        bad: lines of a config that it finds.
        good: the same lines, mended.
        modes: for which configs it is meant.
        needs: what it reads.
        raised_by_builder: whether the training itself says so, so that it is not said twice when one starts.
    """

    code: str
    name: str
    severity: Severity
    check: Check
    why: str
    bad: str
    good: str
    modes: tuple[Mode, ...] = ("train",)
    needs: Needs = "config"
    raised_by_builder: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z][A-Z0-9]*[0-9]{3}", self.code):
            raise ValueError(f"rule {self.code!r}: a code is upper case letters and three digits, such as ABC101")
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name):
            raise ValueError(f"rule {self.code}: the name {self.name!r} is not words with hyphens")
        if self.severity not in ("error", "warning"):
            raise ValueError(f"rule {self.code}: the severity {self.severity!r} is neither error nor warning")
        if self.needs not in ("config", "files", "volumes"):
            raise ValueError(f"rule {self.code}: it needs {self.needs!r}, not config, files or volumes")


@dataclass(frozen=True)
class Finding:
    """A rule, and what it has found."""

    rule: Rule
    found: Found

    def as_dict(self) -> dict[str, str]:
        return {
            "code": self.rule.code,
            "name": self.rule.name,
            "severity": self.rule.severity,
            "key": self.found.key,
            "message": self.message,
            "fix": str(self.found.fix),
        }

    def __str__(self) -> str:
        """In one line, for a log."""
        fix = f". Fix: {_in_one_line(self.found.fix)}" if self.found.fix else ""
        return f"{self.rule.code} {self.rule.name}: {self.found.key}: {self.message}{fix}"

    @property
    def message(self) -> str:
        """In one line, whatever a config has put into it."""
        return " ".join(self.found.message.split())


def _in_one_line(fix: Fix | str) -> str:
    """Lines of YAML as YAML in one line; a sentence as it is."""
    if isinstance(fix, Fix) and fix.changes:
        return fix.in_one_line
    lines = str(fix)
    try:
        value = yaml.safe_load(lines)
    except yaml.YAMLError:
        return " ".join(lines.split())
    text = as_yaml(value).removeprefix("{").removesuffix("}") if isinstance(value, dict) else lines
    return " ".join(text.split())


class Family:
    """Collects the rules of one file, in its order."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def rule(
        self,
        code: str,
        severity: Severity,
        *,
        modes: tuple[Mode, ...] = ("train",),
        needs: Needs = "config",
        raised_by_builder: bool = False,
    ) -> Callable[[Check], Check]:
        """Make a rule of a function.

        The function's name is the rule's. Its docstring is the reason, then ``Example:`` and ``Use instead:`` with
        lines of a config each.
        """

        def add(check: Check) -> Check:
            why, bad, good = _parts(check)
            name = check.__name__.replace("_", "-")
            self.rules.append(Rule(code, name, severity, check, why, bad, good, modes, needs, raised_by_builder))
            return check

        return add


def _parts(check: Check) -> tuple[str, str, str]:
    """Reason, bad and good lines, from a docstring."""
    why, _, examples = inspect.cleandoc(check.__doc__ or "").partition("\n\nExample:\n")
    bad, _, good = examples.partition("\n\nUse instead:\n")
    return why, textwrap.dedent(bad), textwrap.dedent(good)
