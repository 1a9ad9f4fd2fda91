"""All rules: the project's own and those of plugins."""

from collections.abc import Sequence
from itertools import chain

from p3d_regression.checks.rule import Rule
from p3d_regression.checks.rules import CHAPTERS
from p3d_regression.plugins import Plugin, installed, singleton

OWN_PREFIX = "P3D"


def rules() -> list[Rule]:
    """Every rule, by code. Plugins are loaded at the first call."""
    return list(_rules().values())


@singleton
def _rules() -> dict[str, Rule]:
    found = {rule.code: rule for rule in chain.from_iterable(CHAPTERS.values())}
    for plugin, offered in installed().contributions("p3d_rules"):
        if wrong := _against(plugin, offered, found):
            plugin.fail(wrong)
            continue
        found |= {rule.code: rule for rule in offered}
        if offered:
            plugin.detail = ", ".join(filter(None, [plugin.detail, *(rule.code for rule in offered)]))
    return dict(sorted(found.items()))


def _against(plugin: Plugin, offered: Sequence[object], found: dict[str, Rule]) -> Exception | None:
    for rule in offered:
        if not isinstance(rule, Rule):
            return TypeError(f"p3d_rules returned {rule!r}, which is not a Rule")
        if rule.code in found or rule.code.startswith(OWN_PREFIX):
            return ValueError(
                f"its rule {rule.code} has a code that is already in use, or that starts with {OWN_PREFIX}"
            )
    return None


def select(chosen: Sequence[str], ignored: Sequence[str]) -> list[Rule]:
    """The rules that are wanted.

    Args:
        chosen: codes, beginnings of codes, or names; all if empty.
        ignored: the same, to be left out.

    Raises:
        ValueError: there is no such rule.
    """
    for name in [*chosen, *ignored]:
        if not any(_is_meant(rule, name) for rule in rules()):
            raise ValueError(f"{name!r} is not a rule; `p3d-regression rule` lists them")
    wanted = [rule for rule in rules() if not chosen or any(_is_meant(rule, name) for name in chosen)]
    return [rule for rule in wanted if not any(_is_meant(rule, name) for name in ignored)]


def _is_meant(rule: Rule, name: str) -> bool:
    return bool(name) and (rule.code.startswith(name.upper()) or rule.name == name.lower())
