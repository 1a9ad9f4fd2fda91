"""Upstream 1.3.8, whose models apply their last layer in evaluation mode only: every name, and the checkpoints.

Installed from PyPI, where a fork carries that version, into a directory that shadows the newer one.
"""

import json
import math
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from support.activations import KINDS, ROWS, assert_one_function, trained_with
from support.environments import ROOT, Environment, fork_environment
from support.lab import (
    Job,
    Lab,
    Trained,
    prediction_config,
    suit_the_fork,
    training_config,
    write_config,
    write_volumes,
)
from support.preforked import Preforked


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    try:
        return fork_environment(tmp_path_factory.mktemp("fork"))
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        pytest.skip("no package index to install upstream 1.3.8 from")


@pytest.fixture(scope="module")
def forked_old(tmp_path_factory: pytest.TempPathFactory, fork: Environment) -> Iterator[Preforked]:
    with Preforked(fork, tmp_path_factory.mktemp("printed")) as programs:
        yield programs


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, forked_old: Preforked) -> Lab:
    environments = {"fork": forked_old, "fork without plugin": forked_old.having(P3D_REGRESSION_DISABLE="1")}
    return Lab(tmp_path_factory.mktemp("old"), environments)


def test_it_is_the_old_one(fork: Environment) -> None:
    assert fork.check("import pytorch3dunet; print(pytorch3dunet.__version__)").split()[-1] == "1.3.8"
    assert fork.run("p3d-regression", "doctor").returncode == 0


def test_the_trap_its_models_train_on_other_values_than_they_predict(forked_old: Preforked) -> None:
    """Upstream alone."""
    forked_old.check("""
        import torch
        from pytorch3dunet.unet3d.model import get_model
        model = get_model(dict(name="UNet3D", in_channels=1, out_channels=1, f_maps=[8, 16], num_groups=4))
        x = torch.randn(1, 1, 8, 16, 16)
        assert not torch.equal(model.train()(x), model.eval()(x))
    """)


def test_every_name_is_one_and_the_same_function(forked_old: Preforked, fork: Environment) -> None:
    """In training, evaluation and from a checkpoint, in one process."""
    both = os.pathsep.join([fork.variables["PYTHONPATH"], str(ROOT / "tests")])
    code = """
        import pytorch3dunet
        from support.one_function import assert_it_of_all
        print(pytorch3dunet.__version__, assert_it_of_all())
    """
    version, count = forked_old.having(PYTHONPATH=both).check(code).split()[-2:]
    assert version == "1.3.8"
    assert int(count) == len(ROWS)


@pytest.mark.parametrize("name", KINDS)
def test_trains_validates_and_predicts_one_and_the_same_function(old: Lab, name: str) -> None:
    trained = trained_with(old, "fork", name)
    assert_one_function(trained, ROWS[name])
    assert trained.predict_log.count("taken from the checkpoint") == 1


def test_a_list_per_channel(old: Lab) -> None:
    model = {"out_channels": 2}
    value = ["sigmoid", {"name": "bounded", "low": -1, "high": 3}]
    trained = old.do(Job("fork", model | {"final_activation": value}, model, labels="fractions", iterations=8))
    row = {"range": [-1.0, 3.0]}
    assert_one_function(trained, row)
    assert trained.prediction[0].min() >= 0


def test_labels_in_units_of_their_own(old: Lab) -> None:
    model = {"final_activation": "none", "target_scaling": "standardize"}
    trained = old.do(Job("fork", model, predict={}, labels=(5000.0, 5040.0), iterations=8))
    assert "gradients are multiplied by" in trained.train_log
    assert "target scaling: output = " in trained.predict_log
    assert 4900 < trained.prediction.min() < trained.prediction.max() < 5200
    assert trained.scalars["val_eval_score_avg"][-1][1] < 4 * trained.labels.var()


def test_without_the_key_same_bits_with_and_without_the_plugin(old: Lab) -> None:
    ours, theirs = (old.do(Job(environment, {})) for environment in ("fork", "fork without plugin"))
    assert ours.scalars == theirs.scalars
    np.testing.assert_array_equal(ours.prediction, theirs.prediction, strict=True)
    for key, value in ours.weights.items():
        np.testing.assert_array_equal(value, theirs.weights[key], strict=True)


def test_losses_masks_metrics_and_pictures(forked_old: Preforked, tmp_path: Path) -> None:
    """Its trainer hands tensors to TensorBoard, and weights to the loss where a dataset has some."""
    write_volumes(tmp_path)
    for name in ("train", "val"):
        with h5py.File(tmp_path / f"{name}.h5", "a") as file:
            label = file["label"][()]
            label[np.random.default_rng(0).random(label.shape) < 0.3] = np.nan
            file["label"][...] = label
    config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"})
    config["loss"] = {"name": "MSELoss", "ignore_index": math.nan}
    config["eval_metric"] = {"name": "RMSE"}
    del config["trainer"]["eval_score_higher_is_better"]
    suit_the_fork(config)
    result = forked_old.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    (loss, score) = re.findall(r"Validation finished. Loss: (\S+). Evaluation score: (\S+)", result.stdout)[-1]
    assert float(score) == pytest.approx(math.sqrt(float(loss)), rel=1e-6)
    assert "set trainer.eval_score_higher_is_better: false, from the metric" in result.stdout
    trained = Trained(tmp_path, result.stdout, "")
    assert trained.scalars["val_eval_score_avg"][-1][1] == pytest.approx(float(score), rel=1e-6)
    (events,) = tmp_path.glob("checkpoints/logs/**/events*")
    assert b"val_errors/batch_0/slice_2" in events.read_bytes()


class TestADifferentConfig:
    def test_is_an_error_before_anything_is_written(self, old: Lab, forked_old: Preforked, tmp_path: Path) -> None:
        trained = trained_with(old, "fork", "softplus")
        config = prediction_config(trained.directory, {"name": "UNet3D", "final_activation": "none"})
        config["loaders"]["output_dir"] = str(tmp_path / "predictions")
        suit_the_fork(config)
        result = forked_old.run("predict3dunet", "--config", write_config(tmp_path / "predict.yml", config))
        assert result.returncode != 0
        assert "model.final_activation: the config has none" in result.stderr
        assert not (tmp_path / "predictions").exists()

    def test_is_fine_for_a_pre_trained_checkpoint(self, old: Lab, forked_old: Preforked, tmp_path: Path) -> None:
        trained = trained_with(old, "fork", "softplus")
        config = training_config(trained.directory, {"name": "UNet3D", "final_activation": "none"})
        config["trainer"]["pre_trained"] = str(trained.directory / "checkpoints" / "last_checkpoint.pytorch")
        config["trainer"]["checkpoint_dir"] = str(tmp_path / "checkpoints")
        suit_the_fork(config)
        result = forked_old.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
        assert result.returncode == 0, result.stderr
        assert "final activation none from the config, on pre-trained weights" in result.stdout


class TestChecks:
    def reports(self, forked_old: Preforked, *arguments: object) -> list[dict]:
        result = forked_old.run("p3d-regression", "check", "--json", *arguments)
        assert "Traceback" not in result.stderr
        return json.loads(result.stdout)

    def test_labels_and_floors_by_the_rules_of_this_version(self, forked_old: Preforked, tmp_path: Path) -> None:
        """Its validation loss is computed after the last layer, its training loss before."""
        write_volumes(tmp_path)
        config = training_config(tmp_path, {"name": "UNet3D", "final_sigmoid": False})
        suit_the_fork(config)
        (report,) = self.reports(forked_old, write_config(tmp_path / "train.yml", config))
        assert report["failures"] == []
        assert {finding["code"] for finding in report["findings"]} == {"P3D101", "P3D106", "P3D501"}
        with h5py.File(tmp_path / "val.h5") as file:
            floor = ((file["label"][()].astype(float) - 1) ** 2).mean()
        assert report["phases"]["val"]["floor"] == pytest.approx({"MSELoss": floor, "MSE": floor})
        assert report["phases"]["train"]["floor"] == {"MSELoss": 0, "MSE": 0}

    def test_files_that_it_would_skip(self, forked_old: Preforked, tmp_path: Path) -> None:
        """With an error in its log, which must not get into the JSON."""
        write_volumes(tmp_path)
        config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"})
        config["loaders"]["train"]["transformer"]["label"] = [{"name": "Totensor", "expand_dims": True}]
        suit_the_fork(config)
        (report,) = self.reports(forked_old, write_config(tmp_path / "train.yml", config))
        assert {"P3D301", "P3D403"} <= {finding["code"] for finding in report["findings"]}

    def test_at_the_start_of_a_training(self, forked_old: Preforked, tmp_path: Path) -> None:
        write_volumes(tmp_path)
        for model, code in (({"final_activation": "none"}, 1), ({}, 0)):
            config = training_config(tmp_path, {"name": "UNet3D", **model})
            config["trainer"]["eval_score_higher_is_better"] = True
            suit_the_fork(config)
            result = forked_old.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
            assert (result.returncode != 0) == code
            assert "P3D202 score-direction" in (result.stderr if code else result.stdout)
