"""A rule in words: for ``p3d-regression rule CODE`` and for docs/rules.md, which is made by

python -m p3d_regression.checks.docs > docs/rules.md
"""

from p3d_regression.checks.builtin import FAMILIES
from p3d_regression.checks.rule import Rule

_NEEDS = {
    "config": "the config alone",
    "files": "the files that the config names, without reading volumes",
    "volumes": "all volumes that the config names",
}
_MODES = {"train": "training", "predict": "prediction"}

_HEAD = """\
# Rules of `p3d-regression check`

Made from the code (`python -m p3d_regression.checks.docs`); `p3d-regression rule CODE` prints one of them.

An error means that what comes out would be wrong, or that nothing would come out; a warning means that it may be. The
rules that look at the config alone also run by themselves when a training or a prediction starts, see the
[README](../README.md#find-the-trap-before-training).
"""


def rules_page() -> str:
    """The text of docs/rules.md."""
    parts = [_HEAD, "| code | name | severity | reads |\n| --- | --- | --- | --- |"]
    own = [rule for _, family in FAMILIES.values() for rule in family.rules]
    parts[-1] += "".join(f"\n| [{r.code}](#{_anchor(r)}) | {r.name} | {r.severity} | {_NEEDS[r.needs]} |" for r in own)
    for title, family in FAMILIES.values():
        parts.append(f"## {title}")
        parts += [explain(rule) for rule in family.rules]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def explain(rule: Rule) -> str:
    """A rule as Markdown."""
    where = " and ".join(_MODES[mode] for mode in rule.modes)
    return (
        f"### {rule.code} {rule.name}\n\n"
        f"{rule.severity.capitalize()}, for {where} configs. Reads {_NEEDS[rule.needs]}.\n\n"
        f"{rule.why}\n\n"
        f"Found:\n\n```yaml\n{rule.bad}\n```\n\n"
        f"Mended:\n\n```yaml\n{rule.good}\n```"
    )


def _anchor(rule: Rule) -> str:
    return f"{rule.code.lower()}-{rule.name}"


if __name__ == "__main__":
    print(rules_page(), end="")
