"""What a rule is, and what it finds."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from p3d_regression.errors import Found

Severity = Literal["error", "warning"]
Mode = Literal["train", "predict"]

#: The configs that a rule is for, if not for training configs alone.
BOTH: tuple[Mode, ...] = ("train", "predict")
PREDICT: tuple[Mode, ...] = ("predict",)

#: What a rule reads: the config alone; files that it names, but no volumes; or the volumes.
Needs = Literal["config", "files", "volumes"]


#: Given a :class:`~p3d_regression.checks.view.View`.
Check = Callable[[Any], Iterable[Found]]


@dataclass(frozen=True)
class Rule:
    """One way in which a config goes wrong.

    Attributes:
        code: stable, letters and three digits; ``P3D`` is this project's own.
        name: in words with hyphens.
        severity: ``error`` if the result would be wrong or missing, else ``warning``.
        check: returns what it finds in a config.
        why: what pytorch-3dunet does, and why nobody notices; Markdown.
        bad: lines of a config that it finds.
        good: what to write instead.
        modes: the configs that it is for.
        needs: what it reads.
        raised_by_builder: whether building the model or the training raises the same error, so that the checks at the
            start leave the rule out.
        stops: whether the checks at the start stop for an error; if not, they log it: some of the result is lost, but
            what is left is right.
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
    stops: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z][A-Z0-9]*[0-9]{3}", self.code):
            raise ValueError(
                f"rule {self.code!r}: a code consists of upper-case letters and three digits, such as ABC101"
            )
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name):
            raise ValueError(
                f"rule {self.code}: the name {self.name!r} does not consist of lower-case words and hyphens"
            )
        if self.severity not in ("error", "warning"):
            raise ValueError(f"rule {self.code}: the severity is {self.severity!r}, neither error nor warning")
        if self.needs not in ("config", "files", "volumes"):
            raise ValueError(f"rule {self.code}: needs is {self.needs!r}, not config, files or volumes")


@dataclass(frozen=True)
class Finding:
    """A rule, and what it has found."""

    rule: Rule
    found: Found

    @property
    def is_error(self) -> bool:
        return self.rule.severity == "error"

    @property
    def message(self) -> str:
        """In one line, whatever a config has put into it."""
        return " ".join(self.found.message.split())

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``fix`` is the text for people, ``changes`` the same as data."""
        return {
            "code": self.rule.code,
            "name": self.rule.name,
            "severity": self.rule.severity,
            "key": self.found.key,
            "message": self.message,
            "fix": str(self.found.fix),
            "changes": [change.as_dict() for change in self.found.fix.changes],
        }

    def __str__(self) -> str:
        """In one line, for a log."""
        text = f"{self.rule.code} {self.rule.name}: {self.found.key}: {self.message}"
        return f"{text.removesuffix('.')}. Fix: {self.found.fix.in_one_line}" if self.found.fix else text


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
        stops: bool = True,
    ) -> Callable[[Check], Check]:
        """Make a rule of a function.

        The function's name is the rule's. Its docstring is the reason, then ``Example:`` and ``Use instead:`` with
        lines of a config each.
        """

        def add(check: Check) -> Check:
            why, bad, good = _parts(check)
            name = check.__name__.replace("_", "-")
            self.rules.append(Rule(code, name, severity, check, why, bad, good, modes, needs, raised_by_builder, stops))
            return check

        return add


def _parts(check: Check) -> tuple[str, str, str]:
    """Reason, bad and good lines, from a docstring."""
    why, _, examples = inspect.cleandoc(check.__doc__ or "").partition("\n\nExample:\n")
    bad, _, good = examples.partition("\n\nUse instead:\n")
    return why, textwrap.dedent(bad), textwrap.dedent(good)
