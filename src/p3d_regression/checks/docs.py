"""A rule in words: for ``p3d-regression rule CODE`` and for docs/rules.md, which is made by

python -m p3d_regression.checks.docs > docs/rules.md
"""

from p3d_regression.checks.rule import Rule
from p3d_regression.checks.rules import CHAPTERS

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

_TAIL = """\
## Your own rules: plugins

A package with an entry point in the group `p3d_regression` adds rules through the pluggy hook `p3d_rules`. It is found
as [plugins with activations](final-activation.md#your-own-plugins) are, and may be one of them.

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

A rule is given a `View`: `view.get("a.dotted.key", default)`, `view.mode`, `view.head` (the last layer with its
ranges), and with `needs="files"` or `needs="volumes"` what was found in the files, `view.phases`. One that raises costs
a message and no training. Codes that start with `P3D` are this project's own.
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


def _anchor(rule: Rule) -> str:
    return f"{rule.code.lower()}-{rule.name}"


if __name__ == "__main__":
    print(rules_page(), end="")
