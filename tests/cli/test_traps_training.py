"""What upstream alone makes of models, losses, metrics, optimizers and NaN, beside the rule that says so before."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from support.checks import merged
from support.preforked import Preforked
from support.traps import Run, Traps

#: Validates after every iteration, and logs nothing else.
_EVERY = {"trainer": {"validate_after_iters": 1, "log_after_iters": 1000}}


def curve(run: Run, tag: str) -> list[float]:
    return [value for _, value in run.left.scalars[tag]]


def best(run: Run) -> dict[str, Any]:
    """What upstream has kept as best_checkpoint."""
    return torch.load(run.left.directory / "checkpoints" / "best_checkpoint.pytorch", map_location="cpu")


def assert_same_training(one: Run, other: Run) -> None:
    assert one.left.scalars["train_loss_avg"]
    assert one.left.scalars == other.left.scalars
    for key, value in one.left.weights.items():
        np.testing.assert_array_equal(value, other.left.weights[key], strict=True, err_msg=key)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


class TestModel:
    def test_without_a_trap_predictions_leave_the_unit_interval(self, traps: Traps) -> None:
        trap = traps.new()
        run, predicted = trap.train({}).succeeded(), trap.predict({}).succeeded()
        assert curve(run, "val_eval_score_avg")[-1] < curve(run, "val_eval_score_avg")[0]
        assert predicted.left.prediction.max() > 1
        assert run.found == predicted.found == set()

    def test_p3d101_softmax_on_one_channel(self, traps: Traps) -> None:
        trap = traps.new()
        softmax = {"model": {"is_segmentation": ..., "final_sigmoid": False}}
        run, predicted = trap.train(merged(_EVERY, softmax)).succeeded(), trap.predict(softmax).succeeded()
        losses = curve(run, "val_loss_avg")
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0] / 2
        assert len(set(curve(run, "val_eval_score_avg"))) == 1
        assert np.unique(predicted.left.prediction).tolist() == [1.0]
        assert "P3D101" in run.found
        assert "P3D101" in predicted.found

    def test_p3d102_a_key_that_no_model_reads(self, traps: Traps) -> None:
        question = """
from pytorch3dunet.unet3d.model import get_model
from pytorch3dunet.unet3d.utils import get_number_of_learnable_parameters

model = get_model(config["model"])
print(json.dumps([get_number_of_learnable_parameters(model), str(model)]))
"""
        trap = traps.new()
        (small, as_written), found = trap.ask(question, {})
        assert small < 50_000
        assert found == set()
        (big, _), found = trap.ask(question, {"model": {"f_maps": ..., "fmaps": [8, 16]}})
        assert 16_000_000 < big < 17_000_000
        assert "P3D102" in found
        (_, with_pooling), found = trap.ask(question, {"model": {"pool_kernel_size": 4}})
        assert with_pooling == as_written
        assert "P3D102" in found

    def test_p3d105_a_text_is_true(self, traps: Traps) -> None:
        trap = traps.new()
        text = {"model": {"is_segmentation": "false"}}
        run, predicted = trap.train(text).succeeded(), trap.predict(text).succeeded()
        assert predicted.left.prediction.min() >= 0
        assert predicted.left.prediction.max() <= 1
        assert "P3D105" in run.found
        assert "P3D105" in predicted.found

    def test_p3d106_predictions_are_the_sigmoid_of_what_was_fitted(self, traps: Traps) -> None:
        default = {"model": {"is_segmentation": ...}}
        left = []
        for changes in ({}, default):
            trap = traps.new(labels=(0.1, 0.3))
            run = trap.train(changes, iterations=12).succeeded()
            trap.predict(changes).succeeded()
            left.append(run)
        without, behind = left
        # the loss knows nothing of the layer
        assert curve(behind, "val_loss_avg") == curve(without, "val_loss_avg")
        assert curve(behind, "train_loss_avg") == curve(without, "train_loss_avg")
        np.testing.assert_allclose(behind.left.prediction, sigmoid(without.left.prediction), rtol=1e-5)
        assert curve(behind, "val_eval_score_avg")[-1] > 5 * curve(behind, "val_loss_avg")[-1]
        assert curve(without, "val_eval_score_avg")[-1] == pytest.approx(curve(without, "val_loss_avg")[-1], rel=1e-4)
        assert "P3D106" in behind.found
        # all labels can be reached
        assert "P3D501" not in behind.found
        assert without.found == set()


class TestActivatedOutputInLogitsLoss:
    @pytest.fixture(scope="class")
    @staticmethod
    def with_plugin(forked: Preforked, tmp_path_factory: pytest.TempPathFactory) -> Traps:
        # what the plugin refuses is done all the same
        return Traps(forked.having(P3D_REGRESSION_CHECKS="warn"), tmp_path_factory.mktemp("plugin"))

    def test_p3d107_the_loss_stays_above_the_floor_of_two_sigmoids(self, with_plugin: Traps) -> None:
        losses = {}
        for final in ("sigmoid", "none"):
            trap = with_plugin.new()
            for name in ("train", "val"):
                trap.edit(name, label=lambda file: (file["raw"] > 0.8).astype(np.float32))
            changes = {
                "model": {"is_segmentation": ..., "final_activation": final},
                "loss": {"name": "BCEWithLogitsLoss"},
            }
            run = trap.train(changes, iterations=10).succeeded()
            losses[final] = curve(run, "val_loss_avg")[-1]
            assert ("P3D107" in run.found) == (final == "sigmoid")
            assert ("WARNING P3DRegression - P3D107" in run.result.stdout) == (final == "sigmoid")
            share = run.left.labels.mean()
        # of 1 where the label is 1, and of 0 where it is 0
        floor = share * math.log1p(math.exp(-1)) + (1 - share) * math.log(2)
        assert losses["sigmoid"] > floor
        assert losses["none"] < floor / 2


class TestLossAndMetric:
    def test_p3d205_beta_of_smooth_l1_is_ignored(self, traps: Traps) -> None:
        smooth = {"loss": {"name": "SmoothL1Loss"}}
        plain = traps.new().train(smooth, iterations=2).succeeded()
        with_beta = traps.new().train(merged(smooth, {"loss": {"beta": 0.01}}), iterations=2).succeeded()
        assert_same_training(with_beta, plain)
        # with the plugin it is not (see test_losses_in_training.py), and this one is far below the spread of the labels
        assert (plain.found, with_beta.found) == (set(), {"P3D517"})

    @pytest.mark.parametrize(
        ("option", "value"), [("reduction", "sum"), ("weight", [10.0]), ("beta", 0.01)], ids=lambda v: str(v)
    )
    def test_p3d205_other_options_too(self, traps: Traps, option: str, value: object) -> None:
        trap = traps.new()
        question = """
from pytorch3dunet.unet3d.losses import get_loss_criterion

loss = get_loss_criterion(config)
print(json.dumps(loss(torch.zeros(1, 1, 2, 2, 2), torch.full((1, 1, 2, 2, 2), 0.5)).item()))
"""
        loss, found = trap.ask(question, {"loss": {"name": "SmoothL1Loss", option: value}})
        assert loss == 0.125
        assert ("P3D205" in found) == (option != "beta")

    def test_p3d206_ignored_voxels_are_counted(self, traps: Traps) -> None:
        question = """
from pytorch3dunet.unet3d.losses import get_loss_criterion
from pytorch3dunet.unet3d.metrics import get_evaluation_metric

labels = torch.full((1, 1, 4, 8, 8), 2.0)
labels[..., :4] = -1
output = torch.zeros(labels.shape, requires_grad=True)
loss = get_loss_criterion(config)(output, labels)
loss.backward()
score = get_evaluation_metric(config)(output, labels)
print(json.dumps([loss.item(), output.grad.sum().item(), score.item()]))
"""
        (loss, gradient, score), found = traps.new().ask(question, {"loss": {"ignore_index": -1}})
        # 4 and -4 without the ignored half, which the metric takes for labels of -1
        assert (loss, gradient, score) == (2.0, -2.0, 2.5)
        assert "P3D206" in found

    def test_nan_is_not_equal_to_itself(self, traps: Traps) -> None:
        for ignored in (math.nan, -1):
            trap = traps.new()
            hole = ignored
            trap.edit("train", label=lambda file, hole=hole: np.where(file["raw"] > 0.9, hole, file["label"]))
            run = trap.train({"loss": {"ignore_index": ignored}}, iterations=2).succeeded()
            assert np.isnan(curve(run, "train_loss_avg")).all() == math.isnan(ignored)
            # with the plugin it is a label that does not count
            assert ("P3D206" in run.found) == (ignored == -1)

    @pytest.mark.parametrize("option", [{}, {"data_range": 36}])
    def test_p3d504_psnr_stops_at_labels_outside_its_range(self, traps: Traps, option: dict[str, int]) -> None:
        psnr = {"eval_metric": {"name": "PSNR", **option}, "trainer": {"eval_score_higher_is_better": True}}
        run = traps.new().train(psnr)
        run.failed_with("ValueError: image_true has intensity values outside the range")
        assert "Validating..." in run.result.stdout
        assert "Validation finished" not in run.result.stdout
        # with the plugin the range is used
        assert run.found == (set() if option else {"P3D504"})

    def test_p3d504_or_where_the_training_score_is_logged_before(self, traps: Traps) -> None:
        psnr = {"eval_metric": {"name": "PSNR"}, "trainer": {"eval_score_higher_is_better": True}}
        run = traps.new().train(merged(psnr, {"trainer": {"log_after_iters": 1}}))
        run.failed_with("ValueError: image_true has intensity values outside the range")
        assert "Validating..." not in run.result.stdout
        assert "P3D504" in run.found

    @pytest.mark.parametrize("metric", ["PSNR", "MSE"])
    def test_p3d209_options_of_a_metric_change_nothing(self, traps: Traps, metric: str) -> None:
        question = """
from pytorch3dunet.unet3d.metrics import get_evaluation_metric

labels = torch.linspace(0, 1, 64).reshape(1, 1, 4, 4, 4)
print(json.dumps(float(get_evaluation_metric(config)(labels + 0.1, labels))))
"""
        changes = {"eval_metric": {"name": metric}, "trainer": {"eval_score_higher_is_better": metric == "PSNR"}}
        trap = traps.new(labels=(0.0, 1.0))
        plain, found = trap.ask(question, changes)
        assert found == set()
        with_range, found = trap.ask(question, merged(changes, {"eval_metric": {"data_range": 1.5}}))
        assert with_range == plain
        # with the plugin PSNR uses it
        assert found == ({"P3D209"} if metric == "MSE" else set())

    def test_p3d505_the_same_error_is_six_decibels_better_beside_a_negative_label(self, traps: Traps) -> None:
        question = """
from pytorch3dunet.datasets.utils import get_train_loaders
from pytorch3dunet.unet3d.metrics import get_evaluation_metric

metric = get_evaluation_metric(config)
print(json.dumps([
    [labels.min().item(), float(metric(labels + 0.1, labels))] for _, labels in get_train_loaders(config)["train"]
]))
"""
        trap = traps.new(labels=(0.2, 0.8))
        # of the two patches only the first one begins there
        trap.edit("train", label=lambda file: np.where(np.arange(96) < 32, -0.2, file["label"]).astype(np.float32))
        psnr = {"eval_metric": {"name": "PSNR"}, "trainer": {"eval_score_higher_is_better": True}}
        scores, found = trap.ask(question, psnr)
        (low, beside), (lowest, without) = sorted(scores)
        assert low < 0 < lowest
        assert beside - without == pytest.approx(20 * math.log10(2), abs=1e-3)
        assert without == pytest.approx(20, abs=1e-3)
        assert found == {"P3D505"}


class TestTrainer:
    def test_p3d202_the_best_checkpoint_is_the_worst_model(self, traps: Traps) -> None:
        default, said = (
            traps.new().train(merged(_EVERY, {"trainer": {"eval_score_higher_is_better": value}})).succeeded()
            for value in (..., False)
        )
        scores = curve(default, "val_eval_score_avg")
        assert scores == curve(said, "val_eval_score_avg")
        assert best(default)["best_eval_score"] == pytest.approx(max(scores), rel=1e-6)
        assert best(default)["num_iterations"] == 1 + scores.index(max(scores))
        assert best(said)["best_eval_score"] == pytest.approx(min(scores), rel=1e-6)
        assert max(scores) > 2 * min(scores)
        assert default.found == {"P3D202"}
        assert said.found == set()

    def test_p3d203_the_learning_rate_falls_while_the_score_improves(self, traps: Traps) -> None:
        wrong, right = (
            traps.new().train(merged(_EVERY, {"lr_scheduler": scheduler})).succeeded()
            for scheduler in (
                {"name": "ReduceLROnPlateau", "mode": mode, "patience": 0, "factor": 0.01} for mode in ("max", "min")
            )
        )
        scores = curve(wrong, "val_eval_score_avg")
        assert scores == sorted(set(scores), reverse=True)
        np.testing.assert_allclose(curve(wrong, "learning_rate"), [2e-2, 2e-4, 2e-6, 2e-8], rtol=1e-5)
        assert "Learning rate below the minimum 1e-06" in wrong.result.stdout
        assert set(curve(right, "learning_rate")) == {np.float32(2e-2)}
        assert min(curve(right, "val_eval_score_avg")) < scores[-1] / 2
        assert wrong.found == {"P3D203"}
        assert right.found == set()

    def test_p3d210_another_spelling_is_adam(self, traps: Traps) -> None:
        misspelled, adam, adamw = (
            traps.new().train({"optimizer": {"name": name, "weight_decay": 0.5}}, iterations=2).succeeded()
            for name in ("adamw", "Adam", "AdamW")
        )
        assert_same_training(misspelled, adam)
        assert curve(misspelled, "val_loss_avg") != curve(adamw, "val_loss_avg")
        assert misspelled.found == {"P3D210"}
        assert adam.found == adamw.found == set()

    def test_p3d211_lr_is_ignored(self, traps: Traps) -> None:
        lr, default, said = (
            traps.new().train({"optimizer": {"learning_rate": ..., **options}}, iterations=2).succeeded()
            for options in ({"lr": 0.5}, {}, {"learning_rate": 0.5})
        )
        assert curve(lr, "learning_rate") == [np.float32(0.001)] * len(curve(lr, "learning_rate"))
        assert_same_training(lr, default)
        assert curve(said, "learning_rate")[0] == 0.5
        assert lr.found == {"P3D211"}


class TestUpstreamsOwnErrors:
    @pytest.mark.parametrize(
        ("code", "changes", "error"),
        [
            ("P3D108", {"model": {"name": "UNet3d"}}, "RuntimeError: Unsupported dataset class: UNet3d"),
            ("P3D108", {"model": {"out_channels": ...}}, "TypeError: UNet3D.__init__() missing 1 required"),
            ("P3D201", {"model": ...}, "KeyError: 'model'"),
            ("P3D201", {"loss": ...}, "AssertionError: Could not find loss function configuration"),
            ("P3D201", {"eval_metric": ...}, "AssertionError: Could not find evaluation metric configuration"),
            ("P3D201", {"optimizer": ...}, "KeyError: 'optimizer'"),
            ("P3D201", {"trainer": ...}, "KeyError: 'trainer'"),
            ("P3D201", {"loaders": ...}, "AssertionError: Could not find data loaders configuration"),
            ("P3D204", {"loss": {"name": "MSELos"}}, "RuntimeError: Unsupported loss function: 'MSELos'"),
            ("P3D204", {"loss": {"name": "WeightedSmoothL1Loss"}}, "KeyError: 'threshold'"),
            ("P3D208", {"eval_metric": {"name": "MSELoss"}}, "AttributeError: module 'pytorch3dunet.unet3d.metrics'"),
            ("P3D212", {"lr_scheduler": {"name": "StepLr"}}, "AttributeError: module 'torch.optim.lr_scheduler'"),
            ("P3D212", {"lr_scheduler": {"name": "StepLR", "step_sise": 9}}, "TypeError: StepLR.__init__() got an"),
            ("P3D213", {"trainer": {"max_num_iteration": 9}}, "TypeError: UNetTrainer.__init__() got an unexpected"),
            ("P3D213", {"trainer": {"max_num_epochs": ...}}, "TypeError: UNetTrainer.__init__() missing 1 required"),
            ("P3D401", {"loaders": {"dataset": "StandardHDF5"}}, "RuntimeError: Unsupported dataset class: Standard"),
        ],
    )
    def test_stops_without_a_hint(self, traps: Traps, code: str, changes: dict[str, Any], error: str) -> None:
        run = traps.new().train(changes).failed_with(error)
        assert code in run.found

    def test_p3d210_yaml_reads_1e_3_as_a_text(self, traps: Traps) -> None:
        run = traps.new().train({"optimizer": {"learning_rate": "1e-3"}})
        run.failed_with("TypeError: '<=' not supported between instances of 'float' and 'str'")
        # without quotation marks
        assert "  learning_rate: 1e-3\n" in run.config.read_text()
        assert run.found == {"P3D210"}


class TestChannels:
    def test_p3d214_the_metric_does_not_skip_the_last_channel(self, traps: Traps) -> None:
        trap = traps.new()
        for name in ("train", "val"):
            trap.edit(name, label=lambda file: np.stack([file["label"], file["label"]]))
        run = trap.train({"loss": {"skip_last_target": True}})
        run.failed_with("ValueError: Input images must have the same dimensions.")
        assert run.found == {"P3D214"}

    def test_p3d309_a_transform_that_breaks_now_and_then(self, traps: Traps) -> None:
        """One patch in ten, unless a config says more: here each."""
        contrast = {"name": "RandomContrast", "execution_probability": 1.0}
        raw = [contrast, {"name": "ToTensor", "expand_dims": True}]
        trap = traps.new()
        run = trap.train({"loaders": {"train": {"transformer": {"raw": raw}}}})
        run.failed_with("TypeError: unsupported operand type(s) for -: ")
        assert run.found == {"P3D309"}
        contrast["mean"] = 0.0
        assert trap.train({"loaders": {"train": {"transformer": {"raw": raw}}}}).succeeded().found == set()


class TestNotANumber:
    @pytest.mark.parametrize(("kind", "code"), [("label", "P3D502"), ("raw", "P3D503")])
    def test_one_nan_ends_as_nan_everywhere(self, traps: Traps, kind: str, code: str) -> None:
        trap = traps.new()
        trap.edit("train", **{kind: lambda file: _with_one_nan(file[kind])})
        run = trap.train({}).succeeded()
        assert np.isnan(curve(run, "train_loss_avg")).all()
        assert all(np.isnan(weight).all() for weight in run.left.weights.values())
        # NaN is not less than infinity
        assert not (trap.directory / "checkpoints" / "best_checkpoint.pytorch").exists()
        trap.predict({}).succeeded()
        assert np.isnan(run.left.prediction).all()
        assert run.found == {code}

    def test_p3d502_in_validation_labels_it_takes_the_score_and_the_best_checkpoint(self, traps: Traps) -> None:
        trap = traps.new()
        trap.edit("val", label=lambda file: _with_one_nan(file["label"]))
        run = trap.train({}).succeeded()
        assert np.isnan(curve(run, "val_eval_score_avg")).all()
        assert not (trap.directory / "checkpoints" / "best_checkpoint.pytorch").exists()
        # the weights have not seen it
        assert not any(np.isnan(weight).any() for weight in run.left.weights.values())
        assert run.found == {"P3D502"}


def _with_one_nan(volume: np.ndarray) -> np.ndarray:
    volume = volume.copy()
    volume[0, 0, 40] = np.nan
    return volume
