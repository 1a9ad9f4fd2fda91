"""A checkpoint remembers its final activation: resumed, pre-trained and predicted with upstream's own commands."""

import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.environments import Environment
from support.lab import Job, Lab, Trained, prediction_config, training_config, write_config, write_volumes
from support.preforked import Preforked

SOFTPLUS2 = {"name": "softplus", "beta": 2}


@pytest.fixture
def trained(lab: Lab) -> Trained:
    return lab.do(Job("plugin", {"final_activation": SOFTPLUS2}, predict={}, labels=(0.0, 20.0)))


def checkpoint_of(trained: Trained) -> Path:
    return trained.directory / "checkpoints" / "last_checkpoint.pytorch"


def remembered(checkpoint: Path) -> Any:
    state = torch.load(checkpoint, weights_only=True)["model_state_dict"]
    return state._metadata[""]["p3d_regression"]["final_activation"]


def our_lines(log: str) -> list[str]:
    lines = [line.split("P3DRegression - ")[1] for line in log.splitlines() if "P3DRegression - " in line]
    return [line for line in lines if "without a network" not in line and "of this validation" not in line]


class TestTheTrapWithoutThePlugin:
    def test_a_checkpoint_forgets(self, lab: Lab) -> None:
        """Upstream alone: trained for regression, predicted with a config that does not say so again."""
        trained = lab.do(Job("bare", {"is_segmentation": False}, predict={}))
        assert trained.labels.max() > 10
        assert trained.prediction.min() >= 0
        assert trained.prediction.max() <= 1


class TestPrediction:
    def test_a_silent_config_needs_nothing(self, lab: Lab, trained: Trained) -> None:
        named = lab.do(Job("plugin", {"final_activation": SOFTPLUS2}, labels=(0.0, 20.0)))
        np.testing.assert_array_equal(trained.prediction, named.prediction, strict=True)
        assert trained.prediction.max() > 1
        (line,) = our_lines(trained.predict_log)
        assert "final activation {name: softplus, beta: 2.0}, output range [0, inf), taken from the checkpoint" in line

    @pytest.mark.parametrize("earlier", [False, True])
    def test_a_different_config_writes_nothing(
        self, forked: Preforked, trained: Trained, tmp_path: Path, earlier: bool
    ) -> None:
        output = tmp_path / "predictions"
        if earlier:
            output.mkdir()
            (output / "val_predictions.h5").write_bytes(b"earlier")
        config = prediction_config(trained.directory, {"name": "UNet3D", "final_activation": "softplus"})
        config["loaders"]["output_dir"] = str(output)
        result = forked.run("predict3dunet", "--config", write_config(tmp_path / "predict.yml", config))
        assert result.returncode != 0
        assert "model.final_activation: the config has softplus, but the checkpoint was " in result.stderr
        assert "trained with {name: softplus, beta: 2.0}" in result.stderr
        if earlier:
            assert (output / "val_predictions.h5").read_bytes() == b"earlier"
        else:
            assert not output.exists()

    def test_the_explicit_way_shows_one_clear_message(
        self, forked: Preforked, trained: Trained, tmp_path: Path
    ) -> None:
        config = prediction_config(trained.directory, {"name": "UNet3D", "final_activation": "none"})
        path = write_config(tmp_path / "predict.yml", config)
        result = forked.run("p3d-regression", "run", "predict3dunet", "--config", path)
        assert result.returncode == 1
        assert result.stderr.startswith("Error: this config has 1 error(s):\n  P3D602")
        assert "model.final_activation: the config has none" in result.stderr

    def test_a_plain_checkpoint_follows_the_config(self, forked: Preforked, lab: Lab, tmp_path: Path) -> None:
        plain = lab.train("bare", is_segmentation=False)
        config = prediction_config(plain.directory, {"name": "UNet3D", "final_activation": "none"})
        config["loaders"]["output_dir"] = str(tmp_path / "predictions")
        config["loaders"]["test"]["file_paths"] = [str(plain.directory / "val.h5")]
        result = forked.run("predict3dunet", "--config", write_config(tmp_path / "predict.yml", config))
        assert result.returncode == 0, result.stderr
        ours = Trained(tmp_path, "", "")
        np.testing.assert_array_equal(ours.prediction, plain.prediction, strict=True)

    def test_ours_loads_in_plain_upstream(self, forked_bare: Preforked, lab: Lab, tmp_path: Path) -> None:
        """With the portable pair, where the plugin is missing: same weights, same values."""
        ours = lab.do(Job("plugin", {"final_activation": "none", "is_segmentation": False}))
        config = prediction_config(
            ours.directory, {"name": "UNet3D", "final_activation": "none", "is_segmentation": False}
        )
        config["loaders"]["output_dir"] = str(tmp_path / "predictions")
        result = forked_bare.run("predict3dunet", "--config", write_config(tmp_path / "predict.yml", config))
        assert result.returncode == 0, result.stderr
        np.testing.assert_array_equal(Trained(tmp_path, "", "").prediction, ours.prediction, strict=True)


class TestTraining:
    @pytest.fixture
    def train(self, forked: Preforked, trained: Trained, tmp_path: Path) -> Callable[..., Any]:
        def run(section: dict[str, Any], model: dict[str, Any]) -> Any:
            config = training_config(trained.directory, {"name": "UNet3D", **model}, iterations=8)
            config["trainer"] |= {"checkpoint_dir": str(tmp_path / "checkpoints"), **section}
            return forked.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))

        return run

    def test_pre_trained_may_get_a_new_head(self, train, trained: Trained, tmp_path: Path) -> None:
        result = train({"pre_trained": str(checkpoint_of(trained))}, {"final_activation": "none"})
        assert result.returncode == 0, result.stderr
        lines = our_lines(result.stdout)
        assert len(lines) == 3  # the last one is about loss and metric
        assert (
            "final activation none from the config, on pre-trained weights that were trained with {name: soft"
            in lines[1]
        )
        assert remembered(tmp_path / "checkpoints" / "last_checkpoint.pytorch") == "none"

    def test_pre_trained_without_the_key_keeps_the_old_one(self, train, trained: Trained, tmp_path: Path) -> None:
        result = train({"pre_trained": str(checkpoint_of(trained))}, {})
        assert result.returncode == 0, result.stderr
        line, of_loss = our_lines(result.stdout)
        assert "taken from the checkpoint" in line
        assert "loss MSELoss, metric MSE" in of_loss
        assert remembered(tmp_path / "checkpoints" / "last_checkpoint.pytorch")["beta"] == 2.0

    @pytest.mark.parametrize("pre_trained", [False, True])
    def test_resume_with_another_one_is_an_error(self, train, trained: Trained, pre_trained: bool) -> None:
        """Also beside pre_trained, which upstream ignores then."""
        before = checkpoint_of(trained).read_bytes()
        path = str(checkpoint_of(trained))
        result = train({"resume": path} | ({"pre_trained": path} if pre_trained else {}), {"final_activation": "none"})
        assert result.returncode != 0
        assert "model.final_activation: the config has none" in result.stderr
        assert checkpoint_of(trained).read_bytes() == before


def wait_for(log: Path, pattern: str, process: Any) -> None:
    deadline = time.monotonic() + 120
    while not re.search(pattern, log.read_text()):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def killed(plugin: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a training that was killed in the middle, a real process."""
    directory = tmp_path_factory.mktemp("killed")
    write_volumes(directory, labels=(0.0, 20.0))
    model = {"name": "UNet3D", "final_activation": SOFTPLUS2}
    config = training_config(directory, model, iterations=100_000)
    config["trainer"]["validate_after_iters"] = 3
    config["trainer"]["max_num_epochs"] = 100_000
    log = directory / "log"
    process = plugin.start("train3dunet", "--config", write_config(directory / "train.yml", config), output=log)
    try:
        # the checkpoint of iteration 3 is written, and the training goes on
        wait_for(log, r"Training iteration \[5/", process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return directory


@pytest.mark.parametrize("resumed", [{}, {"final_activation": SOFTPLUS2}], ids=["silent", "named"])
def test_killed_in_the_middle_a_resumed_training_goes_on(
    forked: Preforked, killed: Path, tmp_path: Path, resumed: dict[str, Any]
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "checkpoints" / "last_checkpoint.pytorch"
    assert remembered(checkpoint)["beta"] == 2.0

    config = training_config(tmp_path, {"name": "UNet3D", **resumed}, iterations=12)
    config["trainer"] |= {"validate_after_iters": 12, "resume": str(checkpoint)}
    result = forked.run("train3dunet", "--config", write_config(tmp_path / "resume.yml", config))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("taken from the checkpoint") == (0 if resumed else 1)
    state = torch.load(checkpoint, weights_only=True)
    assert state["num_iterations"] == 12
    assert remembered(checkpoint)["beta"] == 2.0

    predict = write_config(tmp_path / "predict.yml", prediction_config(tmp_path, {"name": "UNet3D"}))
    result = forked.run("predict3dunet", "--config", predict)
    assert result.returncode == 0, result.stderr
    trained = Trained(tmp_path, "", "")
    assert trained.prediction.min() >= 0
    assert trained.prediction.max() > 1
