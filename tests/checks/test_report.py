"""What a person sees."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from p3d_regression.checks.registry import rules
from p3d_regression.checks.report import show
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import training_config, write_config, write_volumes


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
