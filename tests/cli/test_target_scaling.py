"""Labels in units of their own through upstream's own commands: trained, resumed, pre-trained, predicted, exported."""

import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from p3d_regression.cli.main import main
from support.checks import merged
from support.lab import Trained, prediction_config, training_config, write_config
from support.ours import OURS, compared, hide, last, log_of, stopped_with
from support.preforked import Preforked
from support.traps import Run, Trap, Traps, is_recommended

SCALED = merged(OURS, {"model": {"target_scaling": "standardize"}, "optimizer": {"learning_rate": 0.0002}})
PLAIN = merged(SCALED, {"model": {"target_scaling": ...}})


def in_units(trap: Trap, factor: float, offset: float) -> None:
    """Give the labels another unit."""
    for name in ("train", "val"):
        trap.edit(name, label=lambda file: (factor * file["label"].astype(np.float64) + offset).astype(np.float32))


def checkpoint_of(trap: Trap) -> Path:
    return trap.directory / "checkpoints" / "last_checkpoint.pytorch"


def remembered(path: Path) -> Any:
    state = torch.load(path, weights_only=True)["model_state_dict"]
    return state._metadata[""]["p3d_regression"].get("output", {}).get("target_scaling")


def labels_of(trap: Trap, name: str = "val") -> np.ndarray:
    with h5py.File(trap.directory / f"{name}.h5") as file:
        return file["label"][()].astype(np.float64)


def ours(run: Run) -> list[str]:
    return [line.split(": ", 1)[1] for line in log_of(run).splitlines() if "P3DRegression - p3d-regression" in line]


@pytest.fixture(scope="module")
def trained(runs: Traps) -> Trap:
    """A directory with a checkpoint of a scaled model."""
    trap = runs.new()
    in_units(trap, 1000, 5000)
    trap.train(SCALED).succeeded()
    return trap


class TestTraining:
    def test_the_trap_that_far_labels_are_worse_than_a_constant_for_long(self, runs: Traps) -> None:
        """And what it says of them before."""
        trap = runs.new()
        run = trap.train(PLAIN, iterations=20).succeeded()
        assert is_recommended(run.config)
        guess = labels_of(trap, "train").mean()
        constant = float(np.mean((labels_of(trap) - guess) ** 2))
        assert last(run) > 3 * constant
        run = runs.new().train(SCALED, iterations=20).succeeded()
        assert not is_recommended(run.config)
        assert last(run) < 1.1 * constant

    def test_an_affine_change_of_the_labels_changes_nothing_but_the_units(self, runs: Traps) -> None:
        curves = []
        for factor, offset in ((1, 0), (1000, 5000), (0.001, 0)):
            trap = runs.new()
            in_units(trap, factor, offset)
            changes = merged(SCALED, {"trainer": {"log_after_iters": 1}, "optimizer": {"weight_decay": 0.01}})
            run = trap.train(changes, iterations=6).succeeded()
            scalars = [run.left.scalars[tag] for tag in ("val_eval_score_avg", "val_loss_avg", "train_loss_avg")]
            curves.append(np.array([value for curve in scalars for _, value in curve]) / factor**2)
        assert len(curves[0]) > 8
        np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
        np.testing.assert_allclose(curves[2], curves[0], rtol=1e-4)

    def test_so_it_is_with_an_optimizer_whose_steps_have_units(self, runs: Traps) -> None:
        curves = []
        for factor in (1, 1000):
            trap = runs.new()
            in_units(trap, factor, 0)
            changes = merged(SCALED, {"optimizer": {"name": "SGD", "learning_rate": 0.05}, "loss": {"name": "L1Loss"}})
            run = trap.train(changes, iterations=6).succeeded()
            curves.append(np.array([value for _, value in run.left.scalars["val_eval_score_avg"]]) / factor**2)
        np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
        assert curves[0][-1] != curves[0][0]

    def test_loss_score_and_predictions_have_the_units_of_the_labels(self, runs: Traps) -> None:
        trap = runs.new()
        in_units(trap, 1000, 5000)
        run = trap.train(SCALED).succeeded()
        output, label = (tensor.double() for tensor in compared(run))
        wanted = float(((output - label) ** 2).mean())
        assert last(run) == pytest.approx(wanted, rel=1e-6)
        assert last(run, "val_loss_avg") == pytest.approx(wanted, rel=1e-6)
        assert output.mean() == pytest.approx(float(label.mean()), rel=0.2)
        of_scaling = [line for line in ours(run) if line.startswith("target scaling")]
        assert of_scaling[0].endswith("measuring the labels of loaders.train for model.target_scaling: standardize ...")
        assert "train.h5) measured in" in of_scaling[1]
        numbers = remembered(checkpoint_of(trap))
        assert of_scaling[2] == f"target scaling: output = {numbers['mean'][0]:.9g} + {numbers['std'][0]:.9g} * x"
        assert any(line.startswith("gradients are multiplied by ") for line in ours(run))

    def test_with_a_mask(self, runs: Traps) -> None:
        trap = runs.new()
        label = labels_of(trap, "train")
        hide(trap, math.nan)
        masked = {"loss": {"name": "MSELoss", "ignore_index": math.nan}}
        run = trap.train(merged(SCALED, masked), iterations=2).succeeded()
        numbers = remembered(checkpoint_of(trap))
        assert numbers["mean"][0] == pytest.approx(label.mean(), rel=0.05)
        assert numbers["mean"][0] != pytest.approx(label.mean(), rel=1e-5)
        assert np.isfinite(last(run))

    @pytest.mark.parametrize(
        ("edit", "changes", "why"),
        [
            (lambda file: 0 * file["label"], {}, "train.h5) are 0 in every voxel"),
            (
                lambda file: file["label"],
                {"model": {"final_activation": "sigmoid"}},
                "is bounded: its values are in [0, 1]",
            ),
            (lambda file: file["label"], {"model": {"target_scaling": "minmax"}}, "'minmax' is not known"),
        ],
    )
    def test_what_cannot_be_scaled_stops_before_anything_is_written(
        self, runs: Traps, edit: Any, changes: dict[str, Any], why: str
    ) -> None:
        trap = runs.new()
        trap.edit("train", label=edit)
        run = trap.train(merged(SCALED, changes))
        assert why in stopped_with(run, "ConfigError")
        assert run.found & {"P3D701", "P3D703"}
        assert not (trap.directory / "checkpoints").exists()


class TestCheckpoints:
    def test_a_silent_prediction_has_the_units(self, trained: Trap) -> None:
        run = trained.predict({"model": {"is_segmentation": ...}}).succeeded()
        assert "target scaling: output = " in log_of(run)
        assert abs(run.left.prediction - labels_of(trained)).max() < 10 * labels_of(trained).std()

    @pytest.mark.parametrize("said", [{}, {"final_activation": "none", "target_scaling": "standardize"}])
    def test_resumed_it_keeps_the_numbers_whatever_the_labels_are_now(
        self, trained: Trap, runs: Traps, said: dict[str, str]
    ) -> None:
        trap = runs.new()
        in_units(trap, 1000, 7000)
        # upstream writes on in the directory of what it resumes
        checkpoint_of(trap).parent.mkdir()
        shutil.copy(checkpoint_of(trained), checkpoint_of(trap))
        resume = {"trainer": {"resume": str(checkpoint_of(trap)), "eval_score_higher_is_better": False}}
        model = {"is_segmentation": ..., **said}
        changes = merged(SCALED, resume) | {"model": model}
        run = trap.train(changes, iterations=6).succeeded()
        assert "measuring" not in log_of(run)
        assert any(line.startswith("gradients are multiplied by ") for line in ours(run))
        assert checkpoint_of(trap).read_bytes() != checkpoint_of(trained).read_bytes()
        assert remembered(checkpoint_of(trap)) == remembered(checkpoint_of(trained))

    def test_resumed_with_other_numbers_it_stops(self, trained: Trap) -> None:
        before = checkpoint_of(trained).read_bytes()
        resume = {"trainer": {"resume": str(checkpoint_of(trained))}}
        run = trained.train(merged(merged(SCALED, resume), {"model": {"target_scaling": {"mean": 1, "std": 2}}}))
        message = stopped_with(run, "ConfigError")
        assert "the config has {mean: 1.0, std: 2.0}, but the checkpoint was trained with {mean: " in message
        assert checkpoint_of(trained).read_bytes() == before

    def test_pre_trained_keeps_the_numbers_unless_the_config_says_otherwise(self, trained: Trap, runs: Traps) -> None:
        trap = runs.new()
        start = {"trainer": {"pre_trained": str(checkpoint_of(trained))}}
        trap.train(merged(PLAIN, start), iterations=2).succeeded()
        assert remembered(checkpoint_of(trap)) == remembered(checkpoint_of(trained))
        run = trap.train(merged(SCALED, start), iterations=2).succeeded()
        assert "from the config, on pre-trained weights that were trained with {mean: " in log_of(run)
        assert remembered(checkpoint_of(trap))["std"][0] < 0.01 * remembered(checkpoint_of(trained))["std"][0]


class TestExport:
    """For an environment without the plugin."""

    def test_plain_upstream_predicts_the_same_volume(
        self, trained: Trap, forked_bare: Preforked, tmp_path: Path
    ) -> None:
        expected = trained.predict({"model": {"is_segmentation": ...}}).succeeded().left.prediction
        out = tmp_path / "plain.pytorch"
        result = CliRunner().invoke(main, ["export", str(checkpoint_of(trained)), str(out)])
        assert result.exit_code == 0, result.output
        config = prediction_config(trained.directory, {"name": "UNet3D"})
        config |= yaml.safe_load(result.stdout)
        assert config["model"]["is_segmentation"] is False
        assert "target_scaling" not in result.stdout
        config["model_path"] = str(out)
        config["loaders"]["output_dir"] = str(tmp_path / "predictions")
        run = forked_bare.run("predict3dunet", "--config", write_config(tmp_path / "predict.yml", config))
        assert run.returncode == 0, run.stderr
        found = Trained(tmp_path, "", "").prediction
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        # without the export it predicts standard deviations
        config["model_path"] = str(checkpoint_of(trained))
        config["loaders"]["output_dir"] = str(tmp_path / "again" / "predictions")
        run = forked_bare.run("predict3dunet", "--config", write_config(tmp_path / "predict.yml", config))
        assert run.returncode == 0, run.stderr
        assert abs(Trained(tmp_path / "again", "", "").prediction).max() < 0.01 * abs(expected).max()

    def test_a_graph_runs_without_the_plugin(self, trained: Trap, forked_bare: Preforked, tmp_path: Path) -> None:
        out = tmp_path / "model.pt2"
        result = CliRunner().invoke(main, ["export", str(checkpoint_of(trained)), str(out)])
        assert result.exit_code == 0, result.output
        found = float(
            forked_bare.check(f"""
                import sys, torch
                model = torch.export.load({str(out)!r}).module()
                print(model(torch.zeros(3, 1, 20, 36, 52)).mean().item())
                assert not any(name.startswith(("p3d_regression", "pytorch3dunet")) for name in sys.modules)
            """)
        )
        assert 1000 < abs(found) < 1e5


def test_two_channels_of_which_one_is_scaled(runs: Traps) -> None:
    trap = runs.new()
    for name in ("train", "val"):
        trap.edit(name, label=lambda file: np.stack([file["raw"] > 0.5, 20 * file["raw"] + 500]).astype(np.float32))
    changes = {
        "model": {
            "out_channels": 2,
            "final_activation": ["sigmoid", "none"],
            "target_scaling": ["none", "standardize"],
        },
        "loss": {"name": "channelwise", "channels": [{"name": "BCELoss"}, {"name": "L1Loss", "weight": 0.2}]},
        "eval_metric": {"name": "MeanAbsoluteError"},
    }
    run = trap.train(merged(SCALED, changes)).succeeded()
    assert run.found == set()
    numbers = remembered(checkpoint_of(trap))
    assert numbers["mean"] == [0, pytest.approx(510, rel=0.02)]
    assert numbers["std"] == [1, pytest.approx(3.3, rel=0.3)]
    output, _ = compared(run)
    assert 0 <= output[:, 0].min() <= output[:, 0].max() <= 1
    assert 490 < output[:, 1].mean() < 530


def test_the_config_beside_a_checkpoint_is_one_to_train_with(trained: Trap) -> None:
    """What upstream copies there is the user's file: standardize, not the numbers."""
    (copy,) = {path.read_text() for path in trained.directory.glob("checkpoints/logs/*/*.yml")}
    assert "target_scaling: standardize" in copy
    assert training_config(trained.directory, {"name": "UNet3D"})["model"]["name"] in copy
