"""What the demo may touch, without running it."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from p3d_regression.demo import run as demo
from p3d_regression.demo import training
from p3d_regression.demo.data import Part
from p3d_regression.demo.jobs import JOBS, Job
from p3d_regression.demo.training import Run
from p3d_regression.errors import DemoError
from support.disk import enlarge, small_disk


def claim(out: Path, *, compare: bool = False, iterations: int = 5) -> dict[str, Run]:
    runs = demo._plan(out, JOBS["distance"], iterations, compare)
    demo._claim(out, runs)
    return runs


def test_writes_configs_that_yaml_reads_back_whatever_the_path(tmp_path: Path) -> None:
    out = tmp_path / "a: #'folder' of \"mine\" ü"
    runs = claim(out, compare=True)
    for layer, run in runs.items():
        configs = {path.name: yaml.safe_load(path.read_text()) for path in run.configs()}
        assert configs["train.yml"]["loaders"]["train"]["file_paths"] == [
            str(out / "train_back.h5"),
            str(out / "train_front.h5"),
        ]
        assert configs["predict.yml"]["loaders"]["output_dir"] == str(run.predictions.parent)
        # the checkpoint remembers both
        activation = configs["train.yml"]["model"].pop("final_activation", None)
        scaling = configs["train.yml"]["model"].pop("target_scaling", None)
        assert (activation, scaling) == (("none", "standardize") if layer == "none" else (None, None))
        assert configs["train.yml"]["model"] == configs["predict.yml"]["model"]


def test_the_compared_configs_differ_in_the_last_layer_only(tmp_path: Path) -> None:
    runs = claim(tmp_path / "out", compare=True)
    configs = [yaml.safe_load((run.directory / "train.yml").read_text()) for run in runs.values()]
    for config in configs:
        del config["trainer"]["checkpoint_dir"]
        for key in ("final_activation", "target_scaling", "final_sigmoid"):
            config["model"].pop(key, None)
    assert configs[0] == configs[1] == configs[2]


def test_uses_an_empty_directory_and_its_own(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    claim(tmp_path / "out")
    claim(tmp_path / "out", iterations=6)
    claim(tmp_path / "out", compare=True)


def test_never_touches_a_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoError, match="is not empty and was not made by this demo"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["train.yml", "predict.yml", "test.h5", "checkpoints/best_checkpoint.pytorch"])
def test_never_overwrites_what_was_changed(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    claim(out)
    changed = out / name
    changed.parent.mkdir(exist_ok=True)
    changed.touch()
    demo._remember(out, [out / "train.yml", out / "predict.yml", changed])
    changed.write_text("my own")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(DemoError, match="has been changed since the demo wrote it"):
        claim(out, iterations=6)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_never_overwrites_a_config_it_did_not_write(tmp_path: Path) -> None:
    """The directory is the demo's, but what lies where --compare would write is not."""
    out = tmp_path / "out"
    claim(out)
    mine = out / "upstream-sigmoid" / "train.yml"
    mine.parent.mkdir()
    mine.write_text("my own")
    with pytest.raises(DemoError, match="was not written by this demo"):
        claim(out, compare=True)
    assert mine.read_text() == "my own"


def test_remembers_the_compared_configs_when_it_runs_without_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(out, compare=True)
    claim(out)
    (out / "upstream-sigmoid" / "train.yml").write_text("my own")
    with pytest.raises(DemoError, match="has been changed since the demo wrote it"):
        claim(out, compare=True)


def test_a_users_file_beside_the_demos_is_not_taken_for_the_demos(tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = claim(out)
    (out / "mine.h5").write_text("mine")
    demo._remember(out, demo._files(out, runs))
    assert "mine.h5" not in json.loads((out / demo.MARKER).read_text())


def test_a_damaged_marker_is_a_clear_error(tmp_path: Path) -> None:
    claim(tmp_path / "out")
    (tmp_path / "out" / demo.MARKER).write_text("{")
    with pytest.raises(DemoError, match="is damaged"):
        claim(tmp_path / "out")


def test_a_training_without_the_plugin_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose pytorch-3dunet knows every other name of the config."""
    heard: list[int] = []

    def run_command(command: str, config: Path, watch: Callable[[str], None], variables: object) -> None:
        watch("INFO UNetTrainer - Training iteration [1/5]. Batch [0/9]. Epoch [0/9]")

    monkeypatch.setattr(training, "run_command", run_command)
    with pytest.raises(DemoError, match=r"without the plugin; see .*train\.log\.\n.*p3d-regression doctor"):
        claim(tmp_path / "out")["none"].train(lambda finished, score: heard.append(finished))
    assert heard == []


def test_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(DemoError, match=r"needs nilearn and matplotlib: pip install 'p3d-regression\[demo\]'"):
        demo.run_demo(tmp_path / "out", job="distance", iterations=1, compare=False)
    assert not (tmp_path / "out").exists()


class TestFullDisk:
    @pytest.fixture(autouse=True)
    def noise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In place of the brain: nothing that gzip makes smaller."""
        volume = np.random.default_rng(0).random((32, 32, 32), np.float32)
        parts = dict.fromkeys(JOBS["distance"].files(), Part(volume, volume))
        monkeypatch.setattr("p3d_regression.demo.data.load_brain", lambda: None)
        monkeypatch.setattr(Job, "parts", lambda job, brain: parts)

    @pytest.mark.parametrize("size", ["4k", "8k", "64k"])
    def test_is_one_clear_error_and_the_next_run_goes_on(self, tmp_path: Path, size: str) -> None:
        """Full after the first file, after the first config, after all configs."""
        with small_disk(tmp_path / "disk", size) as disk:
            out = disk / "out"
            with pytest.raises(
                DemoError, match=rf"^{out}: no space left on device; choose a directory on another disk"
            ):
                demo.run_demo(out, job="distance", iterations=1, compare=False)
            assert not list(out.rglob("*.partial"))
            enlarge(disk, "64m")
            for path in claim(out)["none"].configs():
                assert yaml.safe_load(path.read_text())

    def test_of_a_claim_without_a_disk_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As above, on every system: each write that can fail."""
        real = Path.write_bytes
        for failing in range(5):
            out, left = tmp_path / str(failing), [failing]

            def write_bytes(path: Path, content: bytes, left: list[int] = left) -> int:
                if left[0] == 0:
                    real(path, content[:5])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                left[0] -= 1
                return real(path, content)

            with monkeypatch.context() as patched:
                patched.setattr(Path, "write_bytes", write_bytes)
                with pytest.raises(DemoError, match="no space left on device"):
                    demo.run_demo(out, job="distance", iterations=1, compare=False)
            claim(out)

    def test_is_named_where_a_command_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
        with pytest.raises(
            DemoError, match=r"(?s)ended with exit code 2; its disk is full; see .*train\.log:\n.*--config"
        ):
            training.run_command("python", tmp_path / "train.yml", lambda line: None)
