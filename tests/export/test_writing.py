"""The file that an export writes: complete, or not there; and never in place of another."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from p3d_regression.export import run as export_run
from support.checkpoints import Trained
from support.disk import small_disk
from support.environments import Environment


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path, final_activation="none", target_scaling={"mean": 5, "std": 2})


@pytest.fixture(params=["unnamed", "hidden"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the file comes into being: on Linux, and on other systems or file systems."""
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return str(request.param)


@pytest.mark.parametrize("format_", ["plain", "onnx", "pt2"])
def test_an_existing_file_stays(trained: Trained, tmp_path: Path, format_: str) -> None:
    out = tmp_path / "thesis"
    out.write_text("years of work")
    for target in (out, trained.path):
        before = target.read_bytes()
        result = trained.export(target, "--format", format_)
        assert result.exit_code == 1
        assert "exists and is not overwritten" in result.stderr
        assert target.read_bytes() == before


def test_so_does_one_that_appears_in_the_meantime(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    out = tmp_path / "plain.pytorch"
    monkeypatch.setattr(export_run, "_fill", lambda *_: out.write_text("theirs"))
    assert "was created in the meantime" in trained.export(out).stderr
    assert out.read_text() == "theirs"


@pytest.mark.parametrize("links", [True, False])
def test_a_model_that_computes_something_else_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def no_links(*_: object, **__: object) -> None:
            raise OSError("this file system has none")

        monkeypatch.setattr("os.link", no_links)
    out = tmp_path / "plain.pytorch"
    with monkeypatch.context() as patched:
        patched.setattr("p3d_regression.export.portable._folded", lambda weights, scaling: {})
        result = trained.export(out)
        assert result.exit_code == 1
        assert "does not compute what the checkpoint does" in result.stderr
        assert not out.exists()
    assert trained.export(out).exit_code == 0
    assert torch.load(out, weights_only=True)["num_iterations"] == 7


@pytest.mark.parametrize("format_", ["plain", "onnx", "pt2"])
def test_a_full_disk_is_one_clear_error(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, format_: str
) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export_run, "_fill", fill)
    # comparing the graphs is slow, and done before
    monkeypatch.setattr(export_run, "_graph", lambda *_: (b"graph", None))
    before, out = sorted(tmp_path.iterdir()), tmp_path / "out"
    result = trained.export(out, "--format", format_)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {out} cannot be written: no space left on device; nothing was written\n"
    assert sorted(tmp_path.iterdir()) == before


def test_so_is_a_real_one(trained: Trained, tmp_path: Path, way: str) -> None:
    with small_disk(tmp_path / "disk", "16k") as disk:
        out = disk / "plain.pytorch"
        result = trained.export(out)
        assert result.exit_code == 1
        assert result.stderr == f"Error: {out} cannot be written: no space left on device; nothing was written\n"
        assert list(disk.iterdir()) == []


#: Kills exports in child processes while they write; without reading and comparing, which write nothing.
_KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from p3d_regression.cli.main import main
from p3d_regression.export import run

# a shell that starts a program in the background lets it ignore SIGINT
signal.signal(signal.SIGINT, signal.default_int_handler)

def fill(file, content):
    file.write(content[:10])
    file.flush()
    os.write(ready, b".")
    time.sleep(60)

run.export = lambda checkpoint, out, *_: run._write(b"x" * 100, out)
run._fill = fill
found = {}
for way, signals in {"unnamed": ["SIGTERM", "SIGINT", "SIGKILL"], "hidden": ["SIGTERM", "SIGINT"]}.items():
    for name in signals:
        directory = Path(sys.argv[1], way, name)
        directory.mkdir(parents=True)
        waiting, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            if way == "hidden":
                del os.O_TMPFILE
            try:
                main(["export", "checkpoint", str(directory / "out")])
            except SystemExit as ended:
                os._exit(ended.code)
            os._exit(99)
        os.read(waiting, 1)
        meanwhile = os.listdir(directory)
        os.kill(pid, getattr(signal, name))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found[f"{way} {name}"] = [len(meanwhile), status, os.listdir(directory)]
print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name")
def test_killed_while_it_writes_it_leaves_nothing(plugin: Environment, tmp_path: Path) -> None:
    result = plugin.run("python", "-c", _KILLED, tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "unnamed SIGTERM": [0, 143, []],
        "unnamed SIGINT": [0, 1, []],
        "unnamed SIGKILL": [0, -9, []],
        "hidden SIGTERM": [1, 143, []],
        "hidden SIGINT": [1, 1, []],
    }
