"""A broken plugin must not break ``import torch``: break it at each step and look."""

import zipfile
from pathlib import Path

import pytest

import p3d_regression._autoload
from support.environments import Environment, Programs
from support.lab import training_config, write_config, write_volumes
from support.preforked import Preforked

#: What is broken -> (file of the package, text to replace there or None for the whole file, what takes its place).
BREAKAGES = {
    "upstream package": ("patches/activation.py", None, "raise RuntimeError('injected')"),
    "upstream package, exiting": ("patches/activation.py", None, "raise SystemExit('injected')"),
    "upstream package, not Python": ("patches/activation.py", None, "injected = ("),
    "activate": (
        "patches/activation.py",
        "    if is_disabled():",
        "    raise OSError('injected')\n    if is_disabled():",
    ),
    "import hook module": ("_import_hook.py", None, "import injected_and_missing"),
    "import hook installation": ("_import_hook.py", "sys.meta_path.insert(0, self)", "raise KeyError('injected')"),
}
PATCH_BREAKAGES = {
    "model patcher": ("patches/model.py", None, "raise RuntimeError('injected')"),
    "one patch": (
        "_patching.py",
        '    patch = Patch(target, "applied", "replaced")',
        "    raise IndexError('injected')",
    ),
    "value grammar": ("activations/spec.py", None, "import injected_and_missing"),
}


def broken_copy(wheel: Path, directory: Path, breakage: tuple[str, str | None, str]) -> Path:
    """Install the plugin, damaged, to a directory."""
    name, old, new = breakage
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    path = directory / "p3d_regression" / name
    source = path.read_text()
    if old is not None:
        assert source.count(old) == 1
        new = source.replace(old, new)
    path.write_text(new)
    return directory


@pytest.mark.parametrize("step", BREAKAGES)
def test_torch_and_upstream_work_and_one_warning_says_what_failed(
    forked_bare: Preforked, wheel: Path, tmp_path: Path, step: str
) -> None:
    environment = forked_bare.having(PYTHONPATH=str(broken_copy(wheel, tmp_path, BREAKAGES[step])))
    assert_one_warning(environment)


def assert_one_warning(environment: Programs) -> None:
    result = environment.python_code("import torch\nprint(torch.ones(2).sum().item())\nimport pytorch3dunet.train")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "2.0"
    (line,) = [line for line in result.stderr.splitlines() if "p3d-regression" in line]
    assert "could not activate itself" in line
    assert "injected" in line or "SyntaxError" in line
    assert "IGNORES model.final_activation" in line


def test_it_is_so_in_a_fresh_interpreter(bare: Environment, wheel: Path, tmp_path: Path) -> None:
    environment = bare.having(PYTHONPATH=str(broken_copy(wheel, tmp_path, BREAKAGES["upstream package"])))
    assert_one_warning(environment)


@pytest.mark.parametrize("step", PATCH_BREAKAGES)
def test_a_failing_patch_is_one_warning(forked_bare: Preforked, wheel: Path, tmp_path: Path, step: str) -> None:
    copy = broken_copy(wheel, tmp_path / "copy", PATCH_BREAKAGES[step])
    environment = forked_bare.having(PYTHONPATH=str(copy))
    result = environment.python_code("import pytorch3dunet.train")
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "p3d-regression" in line]
    assert "could not patch pytorch3dunet.unet3d." in line
    assert "injected" in line


@pytest.mark.parametrize("step", PATCH_BREAKAGES)
def test_a_failing_patch_stops_a_config_that_needs_it(
    forked_bare: Preforked, wheel: Path, tmp_path: Path, step: str
) -> None:
    copy = broken_copy(wheel, tmp_path / "copy", PATCH_BREAKAGES[step])
    environment = forked_bare.having(PYTHONPATH=str(copy))
    write_volumes(tmp_path)
    config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"}, iterations=1)
    result = environment.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
    assert result.returncode != 0
    assert "Error: model.final_activation: 'none' would be ignored" in result.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_warnings_as_errors_do_not_break_torch_either(bare: Environment, wheel: Path, tmp_path: Path) -> None:
    """In a fresh interpreter."""
    copy = broken_copy(wheel, tmp_path, BREAKAGES["upstream package"])
    environment = bare.having(PYTHONPATH=str(copy), PYTHONWARNINGS="error::RuntimeWarning")
    result = environment.python_code("import torch")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("p3d-regression could not activate itself (RuntimeError: injected)") == 1


@pytest.mark.parametrize("first", ["import sys; sys.stderr.close()", "import sys; sys.stderr = None"])
def test_broken_streams_do_not_break_torch_either(
    forked_bare: Preforked, wheel: Path, tmp_path: Path, first: str
) -> None:
    copy = broken_copy(wheel, tmp_path, BREAKAGES["upstream package"])
    result = forked_bare.having(PYTHONPATH=str(copy)).python_code(f"{first}\nimport torch\nprint('alive')")
    assert result.stdout == "alive\n", result.stderr


def test_an_error_that_cannot_be_shown_does_not_leave_autoload(monkeypatch: pytest.MonkeyPatch) -> None:
    class UnshowableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def fail() -> None:
        raise UnshowableError

    monkeypatch.setattr("p3d_regression.patches.activation.activate", fail)
    p3d_regression._autoload.autoload()


def test_an_interrupt_still_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("p3d_regression.patches.activation.activate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        p3d_regression._autoload.autoload()
