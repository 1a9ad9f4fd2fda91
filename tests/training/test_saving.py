"""Checkpoints survive whatever happens while the next one is saved."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch3dunet.unet3d import utils

import p3d_regression
from p3d_regression.errors import CheckpointSaveError, ConfigError
from p3d_regression.training import saving
from support.disk import small_disk

STATE = {"num_iterations": 1, "weights": torch.arange(64.0)}


@pytest.fixture(autouse=True)
def active() -> None:
    p3d_regression.activate()


def save(directory: Path, number: int, *, best: bool = True, size: int = 64) -> None:
    with saving.safely({}):
        utils.save_checkpoint({"number": number, "weights": torch.zeros(size)}, best, checkpoint_dir=str(directory))


def numbers(directory: Path) -> dict[str, int]:
    return {path.stem: torch.load(path, weights_only=True)["number"] for path in directory.glob("*.pytorch")}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_is_what_pytorch_3dunet_writes(tmp_path: Path) -> None:
    utils.save_checkpoint({"number": 1, "weights": torch.zeros(64)}, True, str(tmp_path / "plain"))
    save(tmp_path / "ours", 1)
    assert names(tmp_path / "plain") == names(tmp_path / "ours")
    assert numbers(tmp_path / "plain") == numbers(tmp_path / "ours")
    save(tmp_path / "ours", 2, best=False)
    assert numbers(tmp_path / "ours") == {"best_checkpoint": 1, "last_checkpoint": 2}


def test_an_error_while_saving_leaves_the_last_good_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(utils.shutil, "copyfile", full)
    with pytest.raises(CheckpointSaveError, match=r"No space left on device.*stay as they are"):
        save(tmp_path, 2)
    assert numbers(tmp_path) == {"best_checkpoint": 1, "last_checkpoint": 1}
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".pytorch")] == []


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "400k") as disk:
        save(disk, 1, size=1000)
        with pytest.raises(CheckpointSaveError, match="MiB are free"):
            save(disk, 2, size=10**6)
        assert numbers(disk) == {"best_checkpoint": 1, "last_checkpoint": 1}
        save(disk, 3, size=1000)
        assert numbers(disk) == {"best_checkpoint": 3, "last_checkpoint": 3}


_KILLED = """
import os, sys, time
import torch
import p3d_regression
p3d_regression.activate()
from pytorch3dunet.unet3d import utils
from p3d_regression.training import saving

directory, moment = sys.argv[1:]
real = {"save": torch.save, "copy": utils.shutil.copyfile, "replace": os.replace}

def stall(*arguments):
    print("now", flush=True)
    time.sleep(60)

if moment == "before":
    torch.save = stall
elif moment == "middle":
    torch.save = lambda state, path: (open(path, "wb").write(b"half"), stall())
elif moment == "copy":
    utils.shutil.copyfile = lambda a, b: (open(b, "wb").write(b"half"), stall())
with saving.safely({}):
    utils.save_checkpoint({"number": 2, "weights": torch.zeros(64)}, True, directory)
"""


def test_killed_while_it_saves(tmp_path: Path) -> None:
    processes = {}
    for moment in ("before", "middle", "copy"):
        save(tmp_path / moment, 1)
        command = [sys.executable, "-c", _KILLED, str(tmp_path / moment), moment]
        processes[moment] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for moment, process in processes.items():
        assert process.stdout
        while "now" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
        assert numbers(tmp_path / moment) == {"best_checkpoint": 1, "last_checkpoint": 1}
        save(tmp_path / moment, 3)
        # and what the killed one has left is gone
        assert names(tmp_path / moment) == ["best_checkpoint.pytorch", "last_checkpoint.pytorch"]


_HOLDS = """
import sys, time
from p3d_regression.training.saving import claim
claim(sys.argv[1])
print("now", flush=True)
time.sleep(60)
"""


def test_two_trainings_in_one_directory(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    with pytest.raises(ConfigError, match="another training is running") as caught:
        saving.claim(str(tmp_path))
    assert caught.value.found.key == "trainer.checkpoint_dir"
    saving.claim(str(tmp_path / "other"))
    # however it ends, the directory is free
    process.kill()
    process.wait(60)
    process.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            saving.claim(str(tmp_path))
            break
        except ConfigError:
            time.sleep(0.1)
    # and one process may train in it again
    saving.claim(str(tmp_path))


def test_without_this_project_in_it_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of its trainings the function is pytorch-3dunet's, with its faults."""
    written: list[Any] = []
    monkeypatch.setattr(torch, "save", lambda state, path: written.append(path))
    utils.save_checkpoint(STATE, False, str(tmp_path / "plain"))
    assert written == [str(tmp_path / "plain" / "last_checkpoint.pytorch")]
