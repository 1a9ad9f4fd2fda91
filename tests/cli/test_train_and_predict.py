"""Upstream's own console scripts: the trap without the plugin, and what the plugin makes of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from support.environments import Environment
from support.lab import LABEL_RANGE, Lab, Trained, prediction_config, training_config, write_config, write_volumes
from support.preforked import Preforked

ARCHITECTURES = ["UNet3D", "ResidualUNet3D", "ResidualUNetSE3D", "UNet2D"]


def assert_same_bits(ours: Trained, theirs: Trained) -> None:
    assert ours.scalars.keys() == theirs.scalars.keys()
    assert {"train_loss_avg", "train_eval_score_avg", "val_loss_avg", "val_eval_score_avg"} <= ours.scalars.keys()
    assert ours.scalars == theirs.scalars
    assert ours.weights.keys() == theirs.weights.keys()
    for key, value in ours.weights.items():
        np.testing.assert_array_equal(value, theirs.weights[key], strict=True, err_msg=key)
    np.testing.assert_array_equal(ours.prediction, theirs.prediction, strict=True)


def lines(log: str, directory: Path) -> list[str]:
    """Those of loggers, without the time and the directory."""
    return [
        re.sub(r"\d+\.\d+ seconds", "", line.split(" [MainThread] ")[1].replace(str(directory), "..."))
        for line in log.splitlines()
        if " [MainThread] " in line
    ]


class TestTheTrapWithoutThePlugin:
    """Upstream alone: why this project exists. If one of these fails, upstream has changed."""

    def test_the_key_is_swallowed_and_predictions_are_squashed(self, lab: Lab) -> None:
        trained = lab.train("bare", final_activation="none")
        assert trained.prediction.min() >= 0
        assert trained.prediction.max() <= 1

    def test_softmax_on_one_channel_is_one_everywhere_while_the_loss_falls(self, lab: Lab) -> None:
        trained = lab.train("bare", final_sigmoid=False)
        assert np.unique(trained.prediction).tolist() == [1.0]
        losses = [value for _, value in trained.scalars["val_loss_avg"]]
        scores = {value for _, value in trained.scalars["val_eval_score_avg"]}
        assert losses[-1] < losses[0]
        assert len(scores) == 1


class TestFinalActivationNone:
    def test_predictions_leave_the_unit_interval(self, lab: Lab) -> None:
        trained = lab.train("plugin", final_activation="none")
        assert trained.prediction.max() > 1
        assert trained.prediction.max() < LABEL_RANGE[1] * 2

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_equals_upstreams_own_is_segmentation_false_bit_for_bit(self, lab: Lab, name: str) -> None:
        ours, theirs = lab.train_all(
            ("plugin", {"name": name, "final_activation": "none"}), ("bare", {"name": name, "is_segmentation": False})
        )
        assert_same_bits(ours, theirs)

    @pytest.mark.parametrize("beside", [{"final_sigmoid": False}, {"final_sigmoid": True, "is_segmentation": True}])
    def test_what_stands_beside_it_does_not_matter(self, lab: Lab, beside: dict[str, bool]) -> None:
        ours, theirs = lab.train_all(
            ("plugin", {"final_activation": None, **beside}), ("bare", {"name": "UNet3D", "is_segmentation": False})
        )
        assert_same_bits(ours, theirs)
        for log in (ours.train_log, ours.predict_log):
            assert log.count("decides the model's output") == 1

    def test_a_fresh_interpreter_does_the_same(self, plugin: Environment, lab: Lab, tmp_path: Path) -> None:
        """The console scripts as a user starts them; everywhere else here they run in forks."""
        forked = lab.train("plugin", final_activation="none")
        write_volumes(tmp_path)
        model = {"name": "UNet3D", "final_activation": "none"}
        logs = []
        for command, make in (("train3dunet", training_config), ("predict3dunet", prediction_config)):
            config = write_config(tmp_path / f"{command}.yml", make(tmp_path, model))
            result = plugin.run(command, "--config", config)
            assert result.returncode == 0, result.stderr
            logs.append(result.stdout)
        assert_same_bits(Trained(tmp_path, *logs), forked)
        for log, of_the_fork in zip(logs, (forked.train_log, forked.predict_log), strict=True):
            assert lines(log, tmp_path) == lines(of_the_fork, forked.directory)

    def test_says_once_what_it_does(self, lab: Lab) -> None:
        trained = lab.train("plugin", final_activation="none")
        for log in (trained.train_log, trained.predict_log):
            line, *others = [line for line in log.splitlines() if "P3DRegression" in line and "validation" not in line]
            others = [other for other in others if "without a network" not in other]
            assert "INFO" in line
            assert "p3d-regression 0." in line
            assert "final activation none, output range (-inf, inf)" in line
            assert len(others) == (log is trained.train_log)
            assert all("loss MSELoss, metric MSE (lower is better)" in other for other in others)


class TestWithoutTheKey:
    @pytest.mark.parametrize("model", [{}, {"final_sigmoid": False}])
    def test_same_bits_with_and_without_the_plugin(self, lab: Lab, model: dict[str, bool]) -> None:
        with_plugin, without = lab.train_all(("plugin", model), ("bare", model))
        assert_same_bits(with_plugin, without)
        for log in (with_plugin.train_log, with_plugin.predict_log):
            said = [line for line in log.replace(str(with_plugin.directory), "").splitlines() if "p3d" in line.lower()]
            # what is wrong with such a config, and nothing else
            assert all(" WARNING P3DRegression - P3D1" in line for line in said)


class TestBadInput:
    def test_stops_with_a_clear_error_and_leaves_nothing_behind(self, forked: Preforked, tmp_path: Path) -> None:
        write_volumes(tmp_path)
        config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "nome"})
        before = sorted(tmp_path.iterdir())
        path = write_config(tmp_path / "train.yml", config)
        result = forked.run("train3dunet", "--config", path)
        assert result.returncode != 0
        assert "ConfigError: model.final_activation: 'nome' is not a known final activation" in result.stderr
        assert "did you mean none?" in result.stderr
        assert sorted(tmp_path.iterdir()) == sorted([*before, path])

    @pytest.mark.parametrize("misplace", ["misspelled", "misplaced"])
    def test_a_key_that_nothing_would_read(self, forked: Preforked, tmp_path: Path, misplace: str) -> None:
        write_volumes(tmp_path)
        config = training_config(tmp_path, {"name": "UNet3D"})
        if misplace == "misspelled":
            config["model"]["final_activaton"] = "none"
        else:
            config["final_activation"] = "none"
        result = forked.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
        assert result.returncode != 0
        assert "ConfigError: " in result.stderr
        assert not (tmp_path / "checkpoints").exists()

    def test_prediction_stops_before_anything_is_written(self, forked: Preforked, lab: Lab, tmp_path: Path) -> None:
        trained = lab.train("plugin", final_activation="none")
        config = prediction_config(trained.directory, {"name": "UNet3D", "final_activation": False})
        config["loaders"]["output_dir"] = str(tmp_path / "predictions")
        result = forked.run("predict3dunet", "--config", write_config(tmp_path / "predict.yml", config))
        assert result.returncode != 0
        assert "ConfigError: model.final_activation: False is a boolean" in result.stderr, result.stderr
        assert not (tmp_path / "predictions").exists()


def test_disabled_the_plugin_leaves_upstream_alone(forked: Preforked, lab: Lab, tmp_path: Path) -> None:
    write_volumes(tmp_path)
    model = {"name": "UNet3D", "final_activation": "none"}
    environment = forked.having(P3D_REGRESSION_DISABLE="1")
    for name, config in (("train", training_config), ("predict", prediction_config)):
        path = write_config(tmp_path / f"{name}.yml", config(tmp_path, model))
        result = environment.run(f"{name}3dunet", "--config", path)
        assert result.returncode == 0, result.stderr
    assert_same_bits(Trained(tmp_path, "", ""), lab.train("bare", final_activation="none"))
