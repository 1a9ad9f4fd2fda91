"""A rule in words: for ``p3d-regression rule CODE`` and for its page in the documentation."""

from p3d_regression.checks.rule import Rule
from p3d_regression.checks.rules import CHAPTERS

#: Address of the documentation.
DOCS_URL = "https://p3d-regression.github.io/p3d-regression"

_NEEDS = {
    "config": "the config alone",
    "files": "the files that the config names, but no volumes",
    "volumes": "all volumes that the config names",
}
_MODES = {"train": "training", "predict": "prediction"}

_HEAD = """\
# Rules of `p3d-regression check`

An error means that the result would be wrong or missing; a warning means that it may be wrong. Each
rule gives an example of a config that it finds, and what to use instead. `p3d-regression check --diff` shows what the
fixes would change in a config, and `--fix` changes it. `p3d-regression rule CODE` prints one rule.

The rules that read the config alone also run when a training or a prediction starts:
[Before training](../check.md).
"""


def pages() -> dict[str, str]:
    """Path in the documentation -> its Markdown: a page for each rule, and one that lists them."""
    index = [_HEAD]
    made: dict[str, str] = {}
    for title, chapter in CHAPTERS.items():
        rows = "".join(
            f"\n| [{rule.code}]({rule.code.lower()}.md) | {rule.name} | {rule.severity} | {_NEEDS[rule.needs]} |"
            for rule in chapter
        )
        index.append(f"## {title}\n\n| code | name | severity | reads |\n| --- | --- | --- | --- |{rows}")
        made |= {f"rules/{rule.code.lower()}.md": explain(rule, level=1) + "\n" for rule in chapter}
    return {"rules/index.md": "\n\n".join(part.strip("\n") for part in index) + "\n"} | made


def explain(rule: Rule, *, level: int = 3) -> str:
    """A rule as Markdown, with a heading of this level."""
    where = " and ".join(_MODES[mode] for mode in rule.modes)
    return (
        f"{'#' * level} {rule.code} {rule.name}\n\n"
        f"{rule.severity.capitalize()}, for {where} configs. Reads {_NEEDS[rule.needs]}.\n\n"
        f"{rule.why}\n\n"
        f"Example:\n\n```yaml\n{rule.bad}\n```\n\n"
        f"Use instead:\n\n```yaml\n{rule.good}\n```"
    )


def page_of(rule: Rule) -> str | None:
    """Address of a rule's page; None for rules of plugins."""
    is_own = any(rule in chapter for chapter in CHAPTERS.values())
    return f"{DOCS_URL}/rules/{rule.code.lower()}/" if is_own else None
