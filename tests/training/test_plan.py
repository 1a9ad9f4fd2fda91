"""What is this project's in a training, and what stays upstream's."""

import datetime
import math
from pathlib import Path
from typing import Any

import pytest

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_config
from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, write
from p3d_regression.training.direction import with_direction
from p3d_regression.training.plan import Plan, plan_of
from support.lab import training_config

NAN = math.nan
PLAIN = {"loss": {"name": "MSELoss"}, "eval_metric": {"name": "MSE"}, "model": {"out_channels": 1}}


def plan(loss: dict[str, Any], metric: dict[str, Any] | None = None, *, ours: bool = False) -> Plan:
    return plan_of({**PLAIN, "loss": loss, "eval_metric": metric or {"name": "MSE"}}, model_is_ours=ours)


@pytest.mark.parametrize(
    "loss",
    [
        {"name": "MSELoss"},
        {"name": "MSELoss", "ignore_index": -1},
        {"name": "MSELoss", "weight": [1.0, 2.0]},
        {"name": "SmoothL1Loss", "reduction": "sum"},
        {"name": "BCEDiceLoss", "alpha": 0.5},
        {"name": "DiceLoss", "normalization": "none"},
        {"name": "CrossEntropyLoss", "ignore_index": -1},
        {"name": "WeightedSmoothL1Loss", "threshold": 1, "initial_weight": 2},
        {"name": "SmoothL1Loss", "beta": None},
        {"name": "GeneralizedDiceLoss", "epsilon": 1.0e-3},
        {"name": None},
        {},
    ],
)
def test_what_upstream_knows_stays_upstreams(loss: dict[str, Any]) -> None:
    found = plan(loss)
    assert not found.is_ours
    assert (found.loss, found.metric, found.mask) == (None, None, None)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"name": "HuberLoss"}, "HuberLoss"),
        ({"name": "mse_loss"}, "MSELoss"),
        ({"name": "SmoothL1Loss", "beta": 2.0}, "{name: SmoothL1Loss, beta: 2.0}"),
        ({"name": "MSELoss", "ignore_index": NAN}, "MSELoss"),
        ({"name": "WeightedSmoothL1Loss", "threshold": 1, "initial_weight": 2, "ignore_index": NAN}, "threshold: 1.0"),
    ],
)
def test_what_upstream_would_refuse_or_ignore_is_ours(loss: dict[str, Any], said: str) -> None:
    found = plan(loss)
    assert found.is_ours
    assert said in str(found.loss)
    assert (found.mask is not None) == ("ignore_index" in loss)


def test_a_number_to_ignore_is_ours_where_the_config_is() -> None:
    masked = {"name": "MSELoss", "ignore_index": -1}
    found = plan(masked, ours=True)
    assert str(found.loss) == "MSELoss"
    assert str(found.metric) == "MeanSquaredError"
    assert str(found.mask) == "-1"
    assert str(plan(masked, {"name": "R2Score"}).loss) == "MSELoss"
    assert plan({"name": "MSELoss"}, ours=True).loss is None
    assert plan({"name": "MSELoss"}, ours=True).metric is None
    dice = plan({"name": "DiceLoss", "ignore_index": -1}, {"name": "MeanIoU"}, ours=True)
    assert (dice.loss, dice.metric, dice.mask) == (None, None, None)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"name": "PSNR", "data_range": 2}, "{name: PeakSignalNoiseRatio, data_range: 2.0}"),
        ({"name": "psnr", "data_range": 2}, "{name: PeakSignalNoiseRatio, data_range: 2.0}"),
        ({"name": "MSE", "squared": False}, "{name: MeanSquaredError, squared: false}"),
        ({"name": "r2_score"}, "R2Score"),
        ({"name": "RMSE"}, "RMSE"),
    ],
)
def test_metrics_of_ours(metric: dict[str, Any], said: str) -> None:
    found = plan({"name": "MSELoss"}, metric)
    assert str(found.metric) == said
    assert found.is_ours
    assert found.loss is None


@pytest.mark.parametrize("metric", [{"name": "PSNR"}, {"name": "MSE", "foo": 1}, {"name": "DiceCoefficient"}])
def test_metrics_of_upstream(metric: dict[str, Any]) -> None:
    assert plan({"name": "MSELoss"}, metric).metric is None


def test_variances_are_no_predictions() -> None:
    config = {**PLAIN, "loss": {"name": "GaussianNLLLoss"}, "model": {"out_channels": 4}}
    found = plan_of(config, model_is_ours=True)
    assert found.predicted(4) == [0, 1]
    assert str(found.metric) == "MeanSquaredError"


@pytest.mark.parametrize(
    ("loss", "metric", "part"),
    [
        ({"name": "MSELoss", "ignore_index": NAN}, {"name": "PSNR"}, "lacks the argument data_range"),
        ({"name": "MSELoss", "ignore_index": NAN}, {"name": "SSIM", "data_range": 1}, "compares neighbourhoods"),
        ({"name": "DiceLoss", "ignore_index": NAN}, None, "DiceLoss is not a mean over voxels"),
        ({"name": "HuberLoss", "delta": 0}, None, "cannot be computed"),
    ],
)
def test_what_cannot_work_is_an_error(loss: dict[str, Any], metric: dict[str, Any] | None, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        plan(loss, metric)


@pytest.mark.parametrize("phase", ["train", "val"])
def test_the_metric_is_tried_on_the_patches_of_every_phase_that_is_scored(phase: str) -> None:
    shapes = {"train": [16, 64, 64], "val": [16, 64, 64], phase: [4, 64, 64]}
    loaders = {name: {"slice_builder": {"patch_shape": shape}} for name, shape in shapes.items()}
    config = {**PLAIN, "eval_metric": {"name": "SSIM", "data_range": 1.0}, "loaders": loaders}
    with pytest.raises(ConfigError, match="of patches of 4 x 64 x 64 voxels"):
        plan_of(config, model_is_ours=True)
    # pytorch-3dunet computes no score of training patches then
    silent = {**config, "trainer": {"skip_train_validation": True}}
    if phase == "train":
        assert plan_of(silent, model_is_ours=True).metric is not None


class TestDirection:
    def test_what_is_missing_is_set_and_the_config_left_alone(self) -> None:
        config = {"trainer": {"checkpoint_dir": "x"}, "lr_scheduler": {"name": "ReduceLROnPlateau"}}
        changed, lines = with_direction(config, Plan(True, metric_name="MSE"))
        assert lines == ["trainer.eval_score_higher_is_better: false", "lr_scheduler.mode: min"]
        assert changed["trainer"] == {"checkpoint_dir": "x", "eval_score_higher_is_better": False}
        assert changed["lr_scheduler"] == {"name": "ReduceLROnPlateau", "mode": "min"}
        assert config == {"trainer": {"checkpoint_dir": "x"}, "lr_scheduler": {"name": "ReduceLROnPlateau"}}

    def test_what_is_there_stays(self) -> None:
        config = {"trainer": {"eval_score_higher_is_better": True}, "lr_scheduler": {"name": "StepLR"}}
        assert with_direction(config, Plan(True, metric_name="MSE")) == (config, [])

    def test_a_metric_without_direction_needs_the_line(self) -> None:
        with pytest.raises(ConfigError, match="eval_score_higher_is_better: true  # or false"):
            with_direction({"trainer": {}}, Plan(True, metric_name="Unheard"))
        config = {"trainer": {"eval_score_higher_is_better": False}, "lr_scheduler": {"name": "ReduceLROnPlateau"}}
        assert with_direction(config, Plan(True, metric_name="Unheard"))[1] == ["lr_scheduler.mode: min"]


def test_upstreams_builders_by_hand() -> None:
    """For those who write their own training: the functions know the names, and upstream's stay upstream's."""
    from pytorch3dunet.unet3d import losses, metrics

    loss = losses.get_loss_criterion({"loss": {"name": "HuberLoss", "delta": 2}, "device": "cpu"})
    assert "HuberLoss" in str(loss)
    assert type(losses.get_loss_criterion({"loss": {"name": "MSELoss"}, "device": "cpu"})).__name__ == "MSELoss"
    config = {"eval_metric": {"name": "MAE"}, "loss": {"name": "L1Loss", "ignore_index": NAN}}
    assert repr(metrics.get_evaluation_metric(config)) == "MeanAbsoluteError, without voxels labelled NaN"
    assert type(metrics.get_evaluation_metric({"eval_metric": {"name": "MSE"}})).__name__ == "MSE"
    with pytest.raises(ConfigError, match="did you mean HuberLoss"):
        losses.get_loss_criterion({"loss": {"name": "HubberLoss"}, "device": "cpu"})


class TestUpstreamsThatSomebodyHasExtended:
    def test_a_loss_that_needs_an_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pytorch3dunet.unet3d import losses

        plain = losses._create_loss

        def create(name: str, loss_config: dict[str, Any], *others: Any) -> Any:
            if name == "FocalLoss":
                return 2 * loss_config.get("gamma")
            return plain(name, loss_config, *others)

        monkeypatch.setattr(losses, "_create_loss", create)
        assert not plan({"name": "FocalLoss", "gamma": 2.0}).is_ours
        with pytest.raises(ConfigError, match="is not a known loss"):
            plan({"name": "FocalLos"})

    def test_a_metric_that_is_no_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from functools import partial

        from pytorch3dunet.unet3d import metrics

        monkeypatch.setattr(metrics, "MyMSE", partial(metrics.MSE), raising=False)
        assert plan({"name": "MSELoss"}, {"name": "MyMSE"}).metric is None
        # a function that upstream's metrics call is none
        assert str(plan({"name": "MSELoss"}, {"name": "mean_squared_error"}).metric) == "MeanSquaredError"


def test_a_plugin_that_claims_upstreams_name_does_not_take_the_mask_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    from p3d_regression import Loss
    from p3d_regression.components.registry import Registration
    from p3d_regression.losses.registry import registry
    from p3d_regression.plugins import Plugin

    registrations = registry()._registrations["mseloss"]
    mine = Registration(Loss("MSELoss", nn.MSELoss, summary=""), Plugin("greedy", "greedy 1.0"))
    monkeypatch.setitem(registry()._registrations, "mseloss", [*registrations, mine])
    with pytest.raises(ConfigError, match=r"'MSELoss' is registered by torch.nn and greedy 1.0"):
        plan({"name": "MSELoss", "ignore_index": -1}, ours=True)
    assert not plan({"name": "MSELoss"}).is_ours


class TestSectionsThatAreNone:
    """Values of many kinds, of which pytorch-3dunet answers most with a bare TypeError."""

    VALUES: tuple[Any, ...] = (
        None, True, False, 0, 3, -1, 2.5, NAN, math.inf, "", "MSELoss", "MSE", "R2Score", "HubberLoss", "name", "a b",
        [], ["MSELoss"], [{"name": "MSELoss"}], [[]], {}, {"nam": "MSELoss"}, {"MSELoss": None}, {None: 3},
        {3: "MSELoss"}, {"delta": 1}, {"channels": ["L1Loss"]}, {"losses": 3}, {"data_range": 2},
        datetime.date(2026, 1, 1), b"MSELoss",
    )  # fmt: skip

    def tried(self, config: dict[str, Any]) -> ConfigError | None:
        try:
            plan_of(config, model_is_ours=True)
        except ConfigError as error:
            return error
        return None

    @pytest.mark.parametrize("key", ["loss", "loss.name", "eval_metric", "eval_metric.name"])
    def test_each_is_an_error_of_the_config_with_a_fix_that_works(self, key: str) -> None:
        for value in self.VALUES:
            config = write(key, value).applied_to(PLAIN)
            error = self.tried(config)
            if error is None:
                assert isinstance(value, str)
                continue
            assert error.found.key.startswith(key.partition(".")[0])
            assert isinstance(error.found.fix, Fix)
            assert self.tried(error.found.fix.applied_to(config)) is None, value

    @pytest.mark.parametrize("model", [{"final_activation": "none"}, {}])
    @pytest.mark.parametrize("key", ["loss", "loss.name", "eval_metric", "eval_metric.name"])
    def test_rules_find_each_once(self, key: str, model: dict[str, Any], tmp_path: Path) -> None:
        for value in self.VALUES:
            config = write(key, value).applied_to(training_config(tmp_path, {"name": "UNet3D", **model}))
            view, findings, broken = check_config(config, "train", rules())
            assert broken == {}
            section = key.partition(".")[0]
            found = [f for f in findings if f.rule.severity == "error" and f.found.key.startswith(section)]
            works = isinstance(value, str) and view.plan_error is None and key.endswith(".name")
            assert len(found) == 1 or works, (value, [str(f) for f in found])
