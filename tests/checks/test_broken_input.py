"""What is no config, or names no data: one clear line, a finding or exit status 2, and never a traceback."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.cli.main import main
from support.checks import merged
from support.lab import prediction_config, training_config, write_config, write_volumes

MODEL = {"name": "UNet3D", "final_activation": "none"}


def check(*arguments: object) -> Result:
    """The command, in this process: an error that is not caught is raised."""
    return CliRunner().invoke(main, ["check", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_volumes(tmp_path)
    return tmp_path


class TestNoConfig:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "is empty"),
            ("# nothing but a comment\n", "is empty"),
            ("model: [unclosed\n", "is not YAML: while parsing a flow sequence"),
            ("model:\n\tname: UNet3D\n", "is not YAML: while scanning for the next token"),
            ("- a\n- b\n", "is a list, not a mapping"),
            ("just words\n", "is a str, not a mapping"),
            ("trainer: {a: 2020-99-99}\n", "is not YAML: month must be in 1..12"),
            ("a: !!int abc\n", "is not YAML: invalid literal"),
            (f"a: {'9' * 5000}\n", "is not YAML: Exceeds the limit"),
            ("[" * 3000, "is not YAML: maximum recursion depth"),
            ("model: {name: UNet3D}\n", "is neither a training config"),
            ("loaders: 5\n", "is neither a training config"),
        ],
    )
    def test_is_said_in_one_line(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "config.yml"
        path.write_text(text)
        result = check(path)
        assert result.exit_code == 2
        (line,) = [line for line in result.output.splitlines() if "could not be checked" in line]
        assert said in line
        (found,) = json.loads(check(path, "--json").stdout)
        assert found["findings"] == []
        assert said in found["failures"][0]

    def test_not_there_binary_or_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "binary.yml").write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe")
        for path, said in (("no.yml", "No such file"), ("binary.yml", "is not YAML"), (".", "Is a directory")):
            result = check(tmp_path / path)
            assert result.exit_code == 2
            assert said in result.output

    def test_the_others_are_checked_all_the_same(self, data: Path) -> None:
        good = write_config(data / "good.yml", training_config(data, MODEL))
        result = check(data / "missing.yml", good, "--json")
        assert result.exit_code == 2
        missing, found = json.loads(result.stdout)
        assert missing["failures"]
        assert found["failures"] == []
        assert found["phases"].keys() == {"train", "val"}


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def five_dimensions(path: Path) -> None:
    with h5py.File(path, "a") as file:
        label = file["label"][()]
        del file["label"]
        file["label"] = label[None, None]


def other_size(path: Path) -> None:
    with h5py.File(path, "a") as file:
        label = file["label"][()]
        del file["label"]
        file["label"] = label[:, :-1]


def a_group(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["label"]
        file.create_group("label/inside")


def a_number(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["label"]
        file["label"] = 5.0


def without_labels(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["label"]


def texts(path: Path) -> None:
    with h5py.File(path, "a") as file:
        shape = file["label"].shape
        del file["label"]
        file["label"] = np.full(shape, b"a")


def no_voxels(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for name in ("raw", "label"):
            del file[name]
            file[name] = np.zeros((0, 64, 64), np.float32)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated": (truncate, "P3D403", "truncated file"),
    "empty file": (lambda path: path.write_bytes(b""), "P3D403", "train.h5: OSError"),
    "no HDF5": (lambda path: path.write_text("II*"), "P3D403", "file signature not found"),
    "gone": (lambda path: path.unlink(), "P3D403", "this file or directory does not exist"),
    "5-D labels": (five_dimensions, "P3D405", "(1, 1, 4, 64, 96)"),
    "labels of another size": (other_size, "P3D405", "(4, 63, 96)"),
    "a group": (a_group, "P3D404", "has no dataset 'label'; its datasets are: raw"),
    "a single number": (a_number, "P3D404", "is empty, or a single number"),
    "no labels": (without_labels, "P3D404", "has no dataset 'label'; its datasets are: raw"),
    "texts": (texts, "P3D309", "fails on the first patch"),
    "no voxels": (no_voxels, "P3D406", "larger than the volume (0, 64, 64)"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_data_is_a_finding(data: Path, name: str) -> None:
    damage, code, said = DAMAGE[name]
    damage(data / "train.h5")
    path = write_config(data / "train.yml", training_config(data, MODEL))
    result = check(path, "--json")
    assert result.exit_code == 1
    (report,) = json.loads(result.stdout)
    assert report["failures"] == []
    messages = [found["message"] for found in report["findings"] if found["code"] == code]
    assert any(said in message for message in messages), report["findings"]
    # the other phase is read all the same
    assert "val" in report["phases"]


def test_chunks_that_cannot_be_read(data: Path) -> None:
    """The file opens, and breaks in the middle of the labels."""
    with h5py.File(data / "train.h5", "a") as file:
        label = file["label"][()]
        del file["label"]
        dataset = file.create_dataset("label", data=label, chunks=(1, 64, 96), compression="gzip")
        chunk = dataset.id.get_chunk_info(2)
    with (data / "train.h5").open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    result = check(write_config(data / "train.yml", training_config(data, MODEL)), "--json")
    assert result.exit_code == 1
    (report,) = json.loads(result.stdout)
    (found,) = report["findings"]
    assert found["code"] == "P3D403"
    assert f"pytorch-3dunet cannot read this: {data / 'train.h5'}: OSError" in found["message"]
    assert report["phases"].keys() == {"val"}


def test_a_directory_without_files(data: Path) -> None:
    (data / "empty").mkdir()
    config = merged(training_config(data, MODEL), {"loaders": {"train": {"file_paths": [str(data / "empty")]}}})
    result = check(write_config(data / "train.yml", config))
    assert result.exit_code == 1
    assert "P3D403 error loaders.train.file_paths: it contains no HDF5 file" in result.output


def test_a_checkpoint_that_is_none(data: Path) -> None:
    path = data / "checkpoint.pytorch"
    config = prediction_config(data, MODEL) | {"model_path": str(path)}
    for content in (b"", b"no zip file", b"PK\x03\x04"):
        path.write_bytes(content)
        (report,) = json.loads(check(write_config(data / "predict.yml", config), "--json").stdout)
        assert [found["code"] for found in report["findings"]] == ["P3D601"]


class Interrupting:
    """Somebody presses Ctrl-C while the second phase is read."""

    def __init__(self) -> None:
        self.started = 0

    def start(self, what: str, voxels: int) -> None:
        self.started += what.startswith("labels")

    def advance(self, voxels: int) -> None:
        if self.started == 2:
            raise KeyboardInterrupt


def test_ctrl_c_ends_with_what_is_known(data: Path) -> None:
    config = training_config(data, {"name": "UNet3D", "final_sigmoid": True})
    path = write_config(data / "train.yml", config)
    report = check_file(str(path), [], rules(), with_data=True, progress=Interrupting())
    assert report.view is not None
    assert report.view.interrupted
    assert report.exit_status == 2
    train, val = (report.view.phases[name].statistics for name in ("train", "val"))
    assert train is not None
    assert val is not None
    assert (train.complete, val.complete) == (True, False)
    assert val.channels[0].count
    assert "P3D501" in {finding.rule.code for finding in report.findings}


#: Values of another kind than pytorch-3dunet takes.
WRONG_KINDS: list[dict[str, Any]] = [
    {"model": None},
    {"model": []},
    {"model": "UNet3D"},
    {"model": {"name": 5, "out_channels": "one"}},
    {"model": {"out_channels": 0}},
    {"model": {1: 2, None: 3}},
    {"model": {"final_activation": {"a": [1]}}},
    {"loss": 5},
    {"loss": {"name": ["MSELoss"]}},
    {"loss": {"name": "MSELoss", "ignore_index": "none"}},
    {"loss": {"name": "WeightedSmoothL1Loss"}},
    {"eval_metric": []},
    {"eval_metric": {"name": None}},
    {"optimizer": {"learning_rate": "fast"}},
    {"optimizer": {"name": {}}},
    {"lr_scheduler": 3},
    {"lr_scheduler": {"mode": "min"}},
    {"trainer": []},
    {"trainer": {1: 2}},
    {"loaders": None},
    {"loaders": {"train": []}},
    {"loaders": {"train": {"file_paths": "train.h5"}}},
    {"loaders": {"train": {"file_paths": [None, 5]}}},
    {"loaders": {"train": {"file_paths": []}}},
    {"loaders": {"train": {"slice_builder": None}}},
    {"loaders": {"train": {"slice_builder": {"patch_shape": 64}}}},
    {"loaders": {"train": {"slice_builder": {"patch_shape": [4, 64]}}}},
    {"loaders": {"train": {"slice_builder": {"patch_shape": [4, "64", 64]}}}},
    {"loaders": {"train": {"slice_builder": {"stride_shape": [0, 0, 0]}}}},
    {"loaders": {"train": {"transformer": {"label": None}}}},
    {"loaders": {"train": {"transformer": {"label": ["ToTensor", {"name": None}, {}]}}}},
    {"loaders": {"train": {"transformer": {"raw": {"name": "ToTensor"}}}}},
    {"loaders": {"raw_internal_path": 5, "label_internal_path": []}},
    {"loaders": {"dataset": 7}},
    {"loaders": {"batch_size": "two"}},
    {"loaders": {"train": {"file_paths": ["a" * 5000]}}},
    {"loaders": {"train": {"file_paths": ["a\0b"]}}},
    {"loaders": {"train": {"slice_builder": {"stride_shape": [4, -1, 64]}}}},
    {"loaders": {"train": {"transformer": {"label": [{"name": "ToTensor"}]}}}},
    {"loaders": {"train": {"transformer": {"label": [{"name": "ToTensor", "expand_dims": True, "dtype": "int99"}]}}}},
    {"loaders": {"val": {"transformer": {"raw": [{"name": "Standardize"}]}}}},
    {"loaders": {"val": {"transformer": {"raw": [{"name": "Standardize", "mean": 3}]}}}},
    {"lr_scheduler": {}},
    {"trainer": {"max_num_iterations": "10"}},
    {"model": {"out_channels": 10**20}},
    {"loaders": {"random_scale": 1000}},
    {"loaders": {"random_scale": 2.5}},
    {"loss": {"skip_last_target": True, "squeeze_channel": True}},
]


@pytest.mark.parametrize("changes", WRONG_KINDS, ids=str)
def test_a_section_of_another_kind_is_an_error_that_is_explained(data: Path, changes: Mapping[str, Any]) -> None:
    config = merged(training_config(data, MODEL), changes)
    path = data / "train.yml"
    path.write_text(yaml.safe_dump(config))
    result = check(path, "--json")
    (report,) = json.loads(result.stdout)
    assert report["failures"] == []
    assert result.exit_code == 1


def test_pictures_that_are_not_there(data: Path) -> None:
    config = training_config(data, MODEL)
    config["loaders"]["dataset"] = "DSB2018Dataset"
    result = check(write_config(data / "train.yml", config), "--json")
    (report,) = json.loads(result.stdout)
    assert "P3D403" in {found["code"] for found in report["findings"]}


def test_labels_too_large_for_a_number(data: Path) -> None:
    with h5py.File(data / "train.h5", "a") as file:
        label = file["label"][()].astype(np.float64)
        del file["label"]
        file["label"] = label * 1e160
    config = training_config(data, MODEL)
    for phase in ("train", "val"):
        config["loaders"][phase]["transformer"]["label"][0]["dtype"] = "float64"
    (report,) = json.loads(check(write_config(data / "train.yml", config), "--json").stdout)
    assert report["phases"]["train"]["constant"]["MSE"] is None
    assert report["phases"]["train"]["labels"][0]["std"] is None


def test_the_second_of_three_configs_is_interrupted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from p3d_regression.checks import reading

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    paths = [write_config(data / f"{index}.yml", training_config(data, MODEL)) for index in range(3)]
    real = reading.datasets.label_volumes
    calls: list[object] = []

    def volumes(loaders: Mapping[str, Any], phase: str) -> Any:
        calls.append(phase)
        return interrupt() if len(calls) == 4 else real(loaders, phase)

    monkeypatch.setattr(reading.datasets, "label_volumes", volumes)
    result = check(*paths, "--json")
    assert result.exit_code == 2
    first, second, third = json.loads(result.stdout)
    assert (first["interrupted"], second["interrupted"]) == (False, True)
    assert first["phases"].keys() == {"train", "val"}
    assert second["phases"].keys() == {"train"}
    assert third["failures"] == ["interrupted before this config"]
    assert len(calls) == 4


@pytest.mark.parametrize("place", ["file", "directory"])
def test_other_formats_are_answered_with_the_line_that_converts_them(data: Path, place: str) -> None:
    config = training_config(data, MODEL)
    (data / "stacks").mkdir()
    stack = data / "stacks" / "a.ome.tif"
    stack.write_bytes(b"II*")
    given = stack if place == "file" else data / "stacks"
    config["loaders"]["train"]["file_paths"] = [str(given)]
    result = check(write_config(data / "train.yml", config), "--json")
    (report,) = json.loads(result.stdout)
    (found,) = (found for found in report["findings"] if found["code"] == "P3D403")
    assert "TIFF file" in found["message"] or "files of other formats" in found["message"]
    out = "a.h5" if place == "file" else "stacks_hdf5"
    assert f"p3d-regression convert {given} --label LABELS {out}" in found["fix"]
