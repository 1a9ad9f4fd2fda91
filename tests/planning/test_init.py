"""``p3d-regression init`` as a command: what it refuses, what it leaves, what it says it did not look at."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from p3d_regression.cli.init import _KINDS
from p3d_regression.cli.main import main
from p3d_regression.planning import fingerprint, layout, run
from p3d_regression.planning.task import KINDS
from support.datasets import noise, texture

SHAPE = (8, 64, 64)


def init(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)])


def pair(path: Path, seed: int = 0, **datasets: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = texture(seed, SHAPE)
    with h5py.File(path, "w") as file:
        for name, values in (datasets or {"raw": 100 + 20 * raw, "label": np.sin(3 * raw) + 3}).items():
            file[name] = values.astype(np.float32) if values.dtype.kind == "f" else values
    return path


def everything(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        pair(tmp_path / "in" / f"{name}.h5", seed)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predict.yml").write_text("mine")
    found = init(tmp_path / "in", "--out", tmp_path / "out")
    assert found.exit_code == 1
    assert "predict.yml exists. Delete it, or write to another directory with --out" in found.output
    assert everything(tmp_path / "out") == {"predict.yml": b"mine"}
    (tmp_path / "out" / "train.yml").write_text("mine too")
    found = init(tmp_path / "in", "--out", tmp_path / "out")
    assert "train.yml and " in found.output
    assert "predict.yml exist. Delete them, or write to another directory with --out" in found.output


@pytest.mark.parametrize(
    ("datasets", "text"),
    [
        (
            {"raw": np.ones(SHAPE), "label": noise(0, SHAPE)},
            "the raw volumes are all 1: there is nothing to learn from",
        ),
        ({"raw": noise(0, SHAPE), "label": np.ones(SHAPE)}, "the labels are all 1"),
        (
            {"raw": np.where(noise(0, SHAPE) > 2, np.nan, noise(0, SHAPE)), "label": noise(0, SHAPE)},
            "raw volumes are NaN or infinite",
        ),
        (
            {"raw": noise(0, SHAPE), "label": np.where(noise(0, SHAPE) > 2, np.inf, noise(1, SHAPE))},
            "of the labels are infinite",
        ),
        ({"raw": noise(0, SHAPE), "label": noise(0, (8, 64, 63))}, "they are not the same voxels"),
        ({"a": noise(0, SHAPE), "b": noise(1, SHAPE)}, "does not follow from their names. Call them raw and label"),
        ({"raw": noise(0, SHAPE)}, "no labels are found among"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_trained_on_leaves_nothing(tmp_path: Path, datasets: Any, text: str) -> None:
    for name in "ab":
        pair(tmp_path / "in" / f"{name}.h5", **datasets)
    found = init(tmp_path / "in", "--out", tmp_path / "out")
    assert found.exit_code == 1, found.output
    assert text in " ".join(found.output.split())
    assert not (tmp_path / "out").exists()


def test_a_failure_while_volumes_are_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        for kind in ("raw", "label"):
            (tmp_path / kind).mkdir(exist_ok=True)
            np.save(tmp_path / kind / f"{seed}.npy", noise(seed + 10 * (kind == "raw"), SHAPE))
    original, calls = layout.to_hdf5, []

    def full(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(layout, "to_hdf5", full)
    found = init(tmp_path / "raw", tmp_path / "label", "--out", tmp_path / "out")
    assert found.exit_code != 0
    assert everything(tmp_path / "out") == {}
    # and once more
    monkeypatch.undo()
    assert init(tmp_path / "raw", tmp_path / "label", "--out", tmp_path / "out").exit_code == 0


def test_a_full_disk_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("raw", "label"):
        (tmp_path / kind).mkdir()
        for seed in range(2):
            np.save(tmp_path / kind / f"{seed}.npy", noise(seed, SHAPE))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    found = init(tmp_path / "raw", tmp_path / "label", "--out", tmp_path / "out")
    assert "1000 bytes left. Write to another disk" in " ".join(found.output.split())
    assert not (tmp_path / "out").exists()


def test_samples_of_many_voxels_and_that_the_others_were_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("abc"):
        raw = texture(seed, (64, 64, 64))
        pair(tmp_path / f"{name}.h5", raw=100 + 20 * raw, label=np.sin(3 * raw) + 3)
    monkeypatch.setattr(fingerprint, "MOST_VOXELS", 200_000)
    read = []
    monkeypatch.setattr(run, "measure", lambda volumes, tick: fingerprint.measure(volumes, read.append, most=200_000))
    found = init(tmp_path, "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert 150_000 < sum(read) <= 200_000
    share = sum(read) / (3 * 64**3)
    assert f"{share:.1%} of the voxels were looked at" in found.output
    assert f"of which {share:.1%} of the voxels were looked at" in (tmp_path / "out" / "train.yml").read_text()
    with h5py.File(tmp_path / "a.h5") as file:
        mean = float(np.mean(file["raw"][...]))
    config = yaml.safe_load((tmp_path / "out" / "train.yml").read_text())
    assert config["loaders"]["train"]["transformer"]["raw"][0]["mean"] == pytest.approx(mean, abs=2)


def test_paths_and_memory_as_a_user_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate("ab"):
        pair(tmp_path / "in" / f"{name}.h5", seed)
    monkeypatch.chdir(tmp_path)
    assert init("in", "--memory", "2 GB").exit_code == 0
    config = yaml.safe_load(Path("train.yml").read_text())
    assert config["loaders"]["train"]["file_paths"] == ["in/a.h5"]
    assert config["trainer"]["checkpoint_dir"] == "checkpoints"
    assert yaml.safe_load(Path("predict.yml").read_text())["loaders"]["output_dir"] == "predictions"
    assert "is not a size, such as 8GB" in init("in", "--memory", "much").output


def test_datasets_that_pytorch_3dunet_cannot_read_are_written_anew(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        one = noise(seed, (1, *SHAPE))
        pair(tmp_path / "channel" / f"{name}.h5", raw=one, label=one[0] ** 3)
        pair(tmp_path / "plane" / f"{name}.h5", raw=one[0, 0], label=one[0, 1])
    for kind, shape in (("channel", SHAPE), ("plane", (1, 64, 64))):
        found = init(tmp_path / kind, "--out", tmp_path / f"out_{kind}")
        assert found.exit_code == 0, found.output
        with h5py.File(tmp_path / f"out_{kind}" / "hdf5" / "train" / "a.h5") as file:
            assert file["raw"].shape == shape


def test_what_is_left_is_said_before_the_next_command(tmp_path: Path) -> None:
    pair(tmp_path / "a.h5", raw=noise(0, SHAPE), label=np.zeros(SHAPE))
    pair(tmp_path / "b.h5", raw=noise(1, SHAPE), label=noise(2, SHAPE))
    found = init(tmp_path, "--out", tmp_path / "out")
    assert "P3D703 error model.target_scaling" in found.output
    assert found.output.rstrip().endswith(f"Next: correct this, then p3d-regression check {tmp_path}/out/train.yml")


def test_predictions_beside_the_volumes_are_not_taken_for_them(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        pair(tmp_path / f"{name}.h5", seed)
    pair(tmp_path / "a_predictions.h5", predictions=noise(0, (1, *SHAPE)))
    found = init(tmp_path, "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert "2 volumes" in found.output


def test_init_predict_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "x.pytorch").write_bytes(b"nothing")
    for arguments, text in (
        ((tmp_path / "no.pytorch", tmp_path), "no.pytorch does not exist"),
        ((tmp_path / "x.pytorch", tmp_path), "is not a checkpoint of pytorch-3dunet"),
    ):
        found = init("predict", *arguments, "--out", tmp_path / "out")
        assert found.exit_code == 1
        assert text in found.output
    assert not (tmp_path / "out").exists()


def test_the_tasks_that_can_be_asked_for_are_those_that_there_are() -> None:
    assert set(_KINDS) == {"auto", *KINDS}


@pytest.mark.parametrize(("share", "is_said"), [(0.6, True), (0.1, False)])
def test_where_labels_may_follow_the_brightness_another_scaling_is_named(
    tmp_path: Path, share: float, is_said: bool
) -> None:
    for seed, name in enumerate("ab"):
        raw, other = texture(seed, SHAPE), noise(seed, SHAPE)
        label = np.sqrt(share) * raw / raw.std() + np.sqrt(1 - share) * other
        pair(tmp_path / f"{name}.h5", raw=100 + 20 * raw, label=label)
    said = init(tmp_path, "--out", tmp_path / "out").output
    assert ("target_scaling: residual learns more" in said) == is_said
    assert (f"explains {share:.0%} of the labels" in said) == is_said
    train = tmp_path / "out" / "train.yml"
    assert "target_scaling: standardize" in train.read_text()
    # what the note says can be written
    config = yaml.safe_load(train.read_text())
    config["model"] |= {"final_activation": "none", "target_scaling": "residual"}
    train.write_text(yaml.safe_dump(config))
    checked = CliRunner().invoke(main, ["check", str(train)])
    assert checked.exit_code == 0, checked.output
    assert "The training takes 1000 iterations" in said
