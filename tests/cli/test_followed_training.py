"""What a training leaves beside its checkpoints, and what a person sees on a terminal."""

import csv
import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from p3d_regression.training import display
from p3d_regression.training.record import Metrics
from p3d_regression.upstream.log import Copy
from support.environments import Environment
from support.lab import Lab, training_config, write_config, write_volumes


def on_a_terminal(command: list[str | Path], columns: int) -> tuple[int, str]:
    """Run a command whose output is a terminal; returns its status and what it printed, without control sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                part = os.read(ours, 2**16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            output += part
    os.close(ours)
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode()).replace("\r", "\n")


def test_a_bar_in_place_of_many_lines_and_what_came_out(plugin: Environment, tmp_path: Path) -> None:
    write_volumes(tmp_path)
    model = {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"}
    config = write_config(tmp_path / "train.yml", training_config(tmp_path, model))
    status, printed = on_a_terminal([plugin.script("train3dunet"), "--config", config], 80)
    assert status == 0, printed
    assert "network      UNet3D, 1 -> 1 channels" in printed
    assert re.search(r"━+ +4/4", printed)
    assert re.search(r"MSE \d\S*, best \d\S*, (a constant|the best line through the raw volume) \d", printed)
    assert re.search(r"best MSE \S+, after iteration [24]\n", printed)
    assert f"checkpoint: {tmp_path}/checkpoints/best_checkpoint.pytorch" in printed
    assert f"next: p3d-regression init predict {tmp_path}/checkpoints/best_checkpoint.pytorch FILES" in printed
    for hidden in ("Training iteration [", "{'manual_seed'", "it/s]", "(encoders): ModuleList"):
        assert hidden not in printed
    # the lines of the plugin and warnings are still there
    assert "P3DRegression - p3d-regression" in printed
    log = (tmp_path / "checkpoints" / "train.log").read_text()
    for kept in ("Training iteration [", "{'manual_seed'", "(encoders): ModuleList", "Validation finished"):
        assert kept in log


def test_without_a_terminal_the_log_is_that_of_pytorch_3dunet_and_a_file_has_all_of_it(lab: Lab) -> None:
    trained = lab.train("plugin", final_activation="none")
    printed = [line for line in trained.train_log.splitlines() if " [MainThread] " in line]
    # loading the config comes before anything is known of it
    log = (trained.directory / "checkpoints" / "train.log").read_text().splitlines()
    kept = [line for line in log if " [MainThread] " in line]
    assert [line for line in printed if "ConfigLoader" not in line] == kept
    assert any("Training iteration [" in line for line in printed)
    assert "━" not in trained.train_log
    with (trained.directory / "checkpoints" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for phase in ("train", "val"):
        for column, tag in (("loss", f"{phase}_loss_avg"), ("MSE", f"{phase}_eval_score_avg")):
            found = [(int(row["iteration"]), float(row[column])) for row in rows if row["phase"] == phase]
            assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in trained.scalars[tag]]


def test_a_training_of_pytorch_3dunet_alone_leaves_no_files_of_ours(lab: Lab) -> None:
    trained = lab.train("plugin", is_segmentation=False)
    names = {path.name for path in (trained.directory / "checkpoints").iterdir()}
    assert not names & {"train.log", "metrics.csv"}


class _Trainer:
    """What a table asks a trainer for."""

    num_epochs = 0

    def __init__(self, iteration: int) -> None:
        self.num_iterations = iteration
        self.optimizer: Any = type("", (), {"param_groups": [{"lr": 0.1}]})


def test_a_resumed_training_goes_on_with_its_table(tmp_path: Path) -> None:
    first = Metrics(tmp_path, "R2Score", 0)
    for iteration in (10, 20, 30):
        first.add(_Trainer(iteration), "val", 1.0, iteration / 100)
    # the checkpoint was that of iteration 20
    second = Metrics(tmp_path, "R2Score", 21)
    second.add(_Trainer(30), "val", 1.0, 0.5)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["iteration"], row["R2Score"]) for row in rows] == [("10", "0.1"), ("20", "0.2"), ("30", "0.5")]
    # another training begins anew
    Metrics(tmp_path, "R2Score", 0)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(("value", "wanted"), [("", True), ("on", True), ("off", False), ("OFF", False), ("0", False)])
def test_the_bar_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool) -> None:
    monkeypatch.setenv(display.SETTING, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert display.is_wanted() == wanted
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert not display.is_wanted()


def test_warnings_of_other_packages_are_printed_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    for handler in before:
        root.removeHandler(handler)
    copy = Copy()
    copy.start()
    try:
        logging.getLogger("another.package").warning("something is deprecated")
        logging.getLogger("another.package").info("nobody wants to know")
    finally:
        copy.stop()
        for handler in before:
            root.addHandler(handler)
    assert capsys.readouterr().err == "something is deprecated\n"
    assert copy not in root.handlers
