"""What a person sees."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from p3d_regression.checks import docs
from p3d_regression.checks.docs import page_of
from p3d_regression.checks.registry import rules
from p3d_regression.checks.report import show
from p3d_regression.checks.rule import Rule
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import training_config, write_config, write_volumes
from support.rules import OWN


@pytest.mark.parametrize("width", [40, 100, 160, 300])
@pytest.mark.parametrize("terminal", [True, False])
def test_every_fix_can_be_pasted(tmp_path: Path, width: int, terminal: bool) -> None:
    """However narrow the terminal: no line of it is broken or cut."""
    write_volumes(tmp_path)
    steps = [{"name": "RandomRotate", "angle_spectrum": 30, "axes": [[2, 1]], "mode": "reflect"}, {"name": "ToTensor"}]
    changes = {"loaders": {"train": {"transformer": {"label": steps}}}, "trainer": {"max_num_iteration": 7}}
    config = merged(training_config(tmp_path, {"name": "UNet3D", "final_sigmoid": False}), changes)
    path = write_config(tmp_path / "[train].yml", config)
    report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
    fixes = [line for finding in report.findings for line in str(finding.found.fix).splitlines()]
    assert len(fixes) > 8
    printed = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)
    show([report], printed)
    lines = printed.file.getvalue().splitlines()
    assert any(str(path) in line for line in lines)
    for fix in fixes:
        assert any(fix in line for line in lines), fix
    assert f"{len(report.findings) - 1} error(s), 1 warning(s)." in printed.file.getvalue()


@pytest.mark.parametrize("width", [60, 300])
@pytest.mark.parametrize(("terminal", "linked"), [(True, True), (False, False)])
def test_on_a_terminal_a_code_is_a_link_to_the_page_of_its_rule(
    tmp_path: Path, width: int, terminal: bool, linked: bool
) -> None:
    path = write_config(tmp_path / "train.yml", training_config(tmp_path, {"name": "UNet3D", "final_sigmoid": False}))
    report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
    colours = "standard" if terminal else None
    printed = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=colours, highlight=False)
    show([report], printed)
    assert (f"{docs.DOCS_URL}/rules/p3d101/" in printed.file.getvalue()) == linked
    assert ("\x1b]8;" in printed.file.getvalue()) == linked


def test_there_is_a_page_for_each_rule_of_the_project_and_none_for_others() -> None:
    pages = docs.pages()
    for rule in OWN:
        address = str(page_of(rule)).removeprefix(f"{docs.DOCS_URL}/").removesuffix("/")
        assert pages[f"{address}.md"].startswith(f"# {rule.code} {rule.name}\n")
        assert f"]({rule.code.lower()}.md)" in pages["rules/index.md"]
    assert page_of(Rule("LAB101", "a-rule", "error", lambda view: [], "", "", "")) is None
