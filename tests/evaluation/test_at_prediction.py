"""``performance_metric`` in a config of pytorch-3dunet, through its own command."""

import logging
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.datasets.utils import get_test_loaders
from pytorch3dunet.predict import get_predictor

from p3d_regression import ConfigError
from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent
from support.lab import write_config
from support.preforked import Preforked
from support.volumes import config_of, section_of, write_checkpoint, write_volume


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    for number, name in enumerate(("a", "b")):
        raw = write_volume(tmp_path / f"{name}.h5", (8, 64, 64))
        with h5py.File(tmp_path / f"{name}.h5", "a") as file:
            file["truth"] = raw * (1 + number)
    found = config_of(tmp_path / "a.h5", [8, 64, 64], [8, 64, 64], [0, 0, 0], output_dir=str(tmp_path / "out"))
    found["loaders"]["test"]["file_paths"].append(str(tmp_path / "b.h5"))
    write_checkpoint(tmp_path / "checkpoints" / "best_checkpoint.pytorch", section_of(1), 0)
    found |= {"model": section_of(1), "model_path": str(tmp_path / "checkpoints" / "best_checkpoint.pytorch")}
    predictor = {"name": "StandardPredictor", "performance_metric": "R2Score", "gt_internal_path": "truth"}
    return {**found, "device": "cpu", "predictor": predictor}


def found(config: dict[str, Any], path: Path) -> dict[str, Any]:
    report = check_file(str(write_config(path, config)), [], rules(), with_data=True, progress=Silent())
    return {finding.rule.code: finding.found for finding in report.findings if finding.rule.code == "P3D604"}


@pytest.mark.parametrize("blend", [{}, {"blend": "gaussian"}])
def test_scores_at_the_end(config: dict[str, Any], tmp_path: Path, forked: Preforked, blend: dict[str, str]) -> None:
    config["predictor"] |= blend
    assert found(config, tmp_path / "predict.yml") == {}
    done = forked.run("predict3dunet", "--config", tmp_path / "predict.yml")
    assert done.returncode == 0, done.stderr
    scores = []
    for name in "ab":
        with h5py.File(tmp_path / "out" / f"{name}_predictions.h5") as out, h5py.File(tmp_path / f"{name}.h5") as file:
            x, y = out["predictions"][0].astype(float), file["truth"][()].astype(float)
        scores.append(1 - np.mean((x - y) ** 2) / y.var())
        printed = re.search(rf"{name}\.h5: R2Score (\S+); WORSE than the raw volume itself", done.stdout)
        if name == "a":
            assert printed is not None
            assert float(printed[1]) == pytest.approx(scores[0], rel=1e-4)
    average = re.search(r"Average metric: (\S+)", done.stdout)
    assert average is not None
    assert float(average[1]) == pytest.approx(np.mean(scores), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"performance_metric": "R2Scor"}, "predictor.performance_metric", "did you mean R2Score"),
        ({"performance_metric": "SSIM"}, "predictor.performance_metric", "compares patches, not voxels"),
        ({"gt_internal_path": None}, "predictor.gt_internal_path", "is missing"),
    ],
)
def test_what_cannot_be_scored_is_said_before(
    config: dict[str, Any], tmp_path: Path, change: dict[str, Any], key: str, message: str
) -> None:
    config["predictor"] |= change
    logging.disable(logging.NOTSET)
    with pytest.raises(ConfigError) as caught:
        get_predictor(torch.nn.Identity(), config)
    assert caught.value.found.key == key
    assert message in caught.value.found.message
    finding = found(config, tmp_path / "predict.yml")["P3D604"]
    assert finding.key == key
    fixed = finding.fix.applied_to(config)
    assert found(fixed, tmp_path / "fixed.yml") == {}


def test_a_truth_that_is_not_there(config: dict[str, Any], tmp_path: Path) -> None:
    config["predictor"]["gt_internal_path"] = "no"
    finding = found(config, tmp_path / "predict.yml")["P3D604"]
    assert "has no such dataset; it has raw, truth" in finding.message
    assert found(finding.fix.applied_to(config), tmp_path / "fixed.yml") == {}


def test_pytorch_3dunets_own_are_left_alone(config: dict[str, Any]) -> None:
    config["predictor"]["performance_metric"] = "dice"
    predictor = get_predictor(torch.nn.Identity(), {**config, "device": "cpu"})
    assert predictor.performance_metric == "dice"
    assert get_test_loaders


def test_a_prediction_of_another_config_is_said(config: dict[str, Any], tmp_path: Path, forked: Preforked) -> None:
    config["predictor"] = {"name": "StandardPredictor", "blend": "gaussian"}
    config["loaders"]["label_internal_path"] = "truth"
    path = write_config(tmp_path / "predict.yml", config)
    assert forked.run("predict3dunet", "--config", path).returncode == 0
    assert "Warning" not in forked.run("p3d-regression", "evaluate", path).stderr
    config["loaders"]["test"]["slice_builder"]["halo_shape"] = [0, 4, 4]
    printed = forked.run("p3d-regression", "evaluate", write_config(path, config)).stderr
    assert (
        "a_predictions.h5 was predicted with loaders.test.slice_builder.halo_shape: [0, 0, 0], not [0, 4, 4]" in printed
    )
    assert "run predict3dunet again" in printed
