"""A rule in words: for ``p3d-regression rule CODE`` and for docs/rules.md, which is made by

python -m p3d_regression.checks.docs > docs/rules.md
"""

from pathlib import Path

from p3d_regression.checks.rule import Rule
from p3d_regression.checks.rules import CHAPTERS

#: Address of the folder docs, once it is published. Without it, links lead to the files of a checkout.
DOCS_URL = ""

_NEEDS = {
    "config": "the config alone",
    "files": "the files that the config names, but no volumes",
    "volumes": "all volumes that the config names",
}
_MODES = {"train": "training", "predict": "prediction"}

_HEAD = """\
# Rules of `p3d-regression check`

Generated from the code by `python -m p3d_regression.checks.docs`; `p3d-regression rule CODE` prints one of them.

An error means that the result would be wrong or missing; a warning means that it may be wrong. Each
rule gives an example of a config that it finds, and what to use instead. `p3d-regression check --diff` shows what the
fixes would change in a config, and `--fix` changes it.

The rules that read the config alone also run when a training or a prediction starts, see the
[README](../README.md#find-the-trap-before-training).
"""

_TAIL = """\
## Your own rules: plugins

A package with an entry point in the group `p3d_regression` adds rules through the pluggy hook `p3d_rules`. It is found
as [plugins with activations](final-activation.md#your-own-plugins) are, and one package may add both.

```python
from p3d_regression import Found, Rule, hookimpl


def voxel_size(view):
    if view.mode == "train" and view.get("loaders.raw_internal_path", "raw").startswith("native/"):
        yield Found(
            "loaders.raw_internal_path",
            "volumes below native/ are not resampled to 1 mm",
            "loaders:\\n  raw_internal_path: resampled/raw",
        )


@hookimpl
def p3d_rules():
    return [
        Rule(
            "LAB101",
            "voxel-size",
            "error",
            voxel_size,
            why="The networks of this lab expect voxels of 1 mm.",
            bad="loaders:\\n  raw_internal_path: native/raw",
            good="loaders:\\n  raw_internal_path: resampled/raw",
        )
    ]
```

A rule receives a `View`: `view.get("a.dotted.key", default)`, `view.mode`, `view.last_layer` with its ranges, and
with `needs="files"` or `needs="volumes"` what the files hold, `view.phases`. The third argument of `Found` is text
that is shown as it is; `check --fix` does not apply it. If a rule raises an error, the error is reported, and the
training continues. Codes that start with `P3D` are reserved for this project.
"""


def rules_page() -> str:
    """The text of docs/rules.md."""
    parts = [_HEAD, "| code | name | severity | reads |\n| --- | --- | --- | --- |"]
    own = [rule for chapter in CHAPTERS.values() for rule in chapter]
    parts[-1] += "".join(f"\n| [{r.code}](#{_anchor(r)}) | {r.name} | {r.severity} | {_NEEDS[r.needs]} |" for r in own)
    for title, chapter in CHAPTERS.items():
        parts.append(f"## {title}")
        parts += [explain(rule) for rule in chapter]
    return "\n\n".join(part.strip("\n") for part in [*parts, _TAIL]) + "\n"


def explain(rule: Rule) -> str:
    """A rule as Markdown."""
    where = " and ".join(_MODES[mode] for mode in rule.modes)
    return (
        f"### {rule.code} {rule.name}\n\n"
        f"{rule.severity.capitalize()}, for {where} configs. Reads {_NEEDS[rule.needs]}.\n\n"
        f"{rule.why}\n\n"
        f"Example:\n\n```yaml\n{rule.bad}\n```\n\n"
        f"Use instead:\n\n```yaml\n{rule.good}\n```"
    )


def page_of(rule: Rule) -> str | None:
    """Address of a rule's page; None for rules of plugins, and where the documentation is not at hand."""
    if not any(rule in chapter for chapter in CHAPTERS.values()):
        return None
    file = Path(__file__).parents[3] / "docs" / "rules.md"
    address = f"{DOCS_URL}/rules.md" if DOCS_URL else file.as_uri() if file.is_file() else None
    return f"{address}#{_anchor(rule)}" if address else None


def _anchor(rule: Rule) -> str:
    return f"{rule.code.lower()}-{rule.name}"


if __name__ == "__main__":
    print(rules_page(), end="")
