"""Keys that nothing reads, and where they are read."""

from pathlib import Path
from typing import Any

import pytest

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.upstream.config_keys import keys_of
from support.checks import Silent, merged
from support.lab import prediction_config, training_config, write_config

MODEL = {"name": "UNet3D", "final_activation": "none"}


def found(path: Path) -> dict[str, Any]:
    """By key: the rule and the changes."""
    report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
    assert report.failures == []
    return {
        finding.found.key: (finding.rule.code, {change.key: change.value for change in finding.found.fix.changes})
        for finding in report.findings
        if finding.rule.code in ("P3D130", "P3D131", "P3D201", "P3D608")
    }


def nested(place: str, value: Any) -> dict[str, Any]:
    for part in reversed(place.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(
    ("place", "value", "code", "target"),
    [
        ("loaders.batchsize", 4, "P3D130", None),
        ("loaders.global_normalisation", True, "P3D130", "loaders.global_normalization"),
        ("loaders.train.batch_size", 4, "P3D130", None),
        ("loaders.train.output_dir", "out", "P3D130", "loaders.output_dir"),
        ("loaders.train.patch_shape", [8, 64, 64], "P3D130", None),
        ("loaders.train.halo_shape", [0, 8, 8], "P3D130", "loaders.train.slice_builder.halo_shape"),
        ("loaders.val.slice_builder.threshhold", 0.1, "P3D130", "loaders.val.slice_builder.threshold"),
        ("loaders.train.slice_builder.file_paths", ["x.h5"], "P3D130", None),
        ("loaders.train.transformer.labels", [], "P3D130", None),
        ("batch_size", 4, "P3D130", None),
        ("random_scale", 4, "P3D130", "loaders.random_scale"),
        ("checkpoint_dir", "elsewhere", "P3D130", None),
        ("loaders.weight_internal_path", "weight", "P3D131", None),
        ("loaders.comment", "mine", "P3D131", None),
        ("loaders.train.slice_builder.shuffle", True, "P3D131", None),
    ],
)
def test_ignored_keys(tmp_path: Path, place: str, value: Any, code: str, target: str | None) -> None:
    config = merged(training_config(tmp_path, MODEL), nested(place, value))
    (said, changes) = found(write_config(tmp_path / "train.yml", config))[place]
    assert said == code
    assert place in changes
    if target is not None:
        assert changes[target] == value
    else:
        assert list(changes) == [place]  # what is meant has a value already


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("predictor.patch_halo", "loaders.test.slice_builder.halo_shape"),
        ("loaders.test.halo_shape", "loaders.test.slice_builder.halo_shape"),
        ("loaders.halo_shape", "loaders.test.slice_builder.halo_shape"),
        ("halo_shape", None),
    ],
)
def test_a_halo_that_would_not_be_used(tmp_path: Path, place: str, target: str | None) -> None:
    config = merged(prediction_config(tmp_path, MODEL), nested(place, [0, 8, 8]))
    every = found(write_config(tmp_path / "predict.yml", config))
    if target is None:
        assert every == {}  # a word of the user's own, as far as anyone can tell
        return
    code, changes = every[place]
    assert code in ("P3D130", "P3D608")
    assert changes[place].name == "DELETE"


@pytest.mark.parametrize("name", ["modle", "optimiser", "loader", "Loss", "eval_metrics"])
def test_a_misspelled_section_is_one_finding(tmp_path: Path, name: str) -> None:
    config = training_config(tmp_path, MODEL)
    right = {
        "modle": "model",
        "optimiser": "optimizer",
        "loader": "loaders",
        "Loss": "loss",
        "eval_metrics": "eval_metric",
    }
    config[name] = config.pop(right[name])
    report = check_file(
        str(write_config(tmp_path / "train.yml", config)), [], rules(), with_data=False, progress=Silent()
    )
    assert [finding.rule.code for finding in report.findings] == ["P3D201"]
    fixed = report.findings[0].found.fix.applied_to(config)
    assert fixed == {**{k: v for k, v in config.items() if k != name}, right[name]: config[name]}


def test_notes_and_anchors_are_no_finding(tmp_path: Path) -> None:
    config = training_config(tmp_path, MODEL)
    config |= {"defaults": {"patch": [1, 2]}, "x-files": ["a"], "author": "me", "loss": config["loss"]}
    assert found(write_config(tmp_path / "train.yml", config)) == {}


def test_the_keys_are_those_of_the_installed_version() -> None:
    assert {"dataset", "batch_size", "train", "raw_internal_path"} <= keys_of("loaders")
    assert {"patch_shape", "stride_shape", "halo_shape", "threshold"} <= keys_of("slice_builder")
    assert keys_of("transformer") == {"raw", "label"}
    assert "patch_halo" not in keys_of("slice_builder")
