"""Losses of this project through upstream's own ``train3dunet``: masks, heads, options of upstream's names."""

import math
import re

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics

from support.checks import merged
from support.ours import OURS, compared, hide, last, log_of, stopped_with, with_two_channels
from support.traps import Traps


class TestMasks:
    def test_upstream_alone_ends_with_weights_that_are_nan(self, traps: Traps) -> None:
        trap = traps.new()
        hide(trap, math.nan)
        run = trap.train({"loss": {"name": "MSELoss", "ignore_index": math.nan}}).succeeded()
        assert all(np.isnan(value).all() for value in run.left.weights.values() if value.ndim)

    def test_upstream_alone_counts_what_it_ignores(self, traps: Traps) -> None:
        trap = traps.new()
        hide(trap, -100.0, part=0.5)
        masked = {"loss": {"name": "MSELoss", "ignore_index": -100.0}, "trainer": {"log_after_iters": 1}}
        run = trap.train(masked, iterations=2).succeeded()
        assert "P3D206" in run.found

    @pytest.mark.parametrize("value", [math.nan, -100.0])
    def test_they_count_neither_in_loss_nor_metric(self, runs: Traps, value: float) -> None:
        trap = runs.new()
        hide(trap, value)
        changes = merged(OURS, {"loss": {"name": "MSELoss", "ignore_index": value}, "eval_metric": {"name": "MSE"}})
        run = trap.train(changes, iterations=2).succeeded()
        output, label = (tensor.double() for tensor in compared(run))
        counts = ~label.isnan() & (label != -100.0)
        assert 0.6 < counts.double().mean() < 0.8
        wanted = float(((output - label)[counts] ** 2).mean())
        assert last(run) == pytest.approx(wanted, rel=1e-6)
        assert last(run, "val_loss_avg") == pytest.approx(wanted, rel=1e-6)
        assert all(np.isfinite(value).all() for value in run.left.weights.values())
        assert f"voxels labelled {'NaN' if math.isnan(value) else '-100'} do not count" in log_of(run)
        assert run.found == set()

    def test_both_ways_to_mark_them_train_the_same_weights(self, runs: Traps) -> None:
        weights = []
        for value in (math.nan, -100.0):
            trap = runs.new()
            hide(trap, value)
            run = trap.train(merged(OURS, {"loss": {"name": "HuberLoss", "ignore_index": value}})).succeeded()
            weights.append(run.left.weights)
        for key, array in weights[0].items():
            np.testing.assert_array_equal(array, weights[1][key])

    def test_nan_without_a_mask_stops_at_the_first_batch_and_says_how(self, runs: Traps) -> None:
        trap = runs.new()
        hide(trap, math.nan, part=0.01)
        message = stopped_with(trap.train(OURS), "NonFiniteLossError")
        assert "the loss is nan in training iteration 1; " in message
        assert f"{trap.directory / 'train.h5'} [z 0:4, y 0:64, x " in message
        assert re.search(r"labels  \S+ to \S+, mean \S+; \d+ of 16384 NaN", message)
        assert "ignore_index: .nan" in message
        assert "No checkpoint has been written yet." in message


class TestHeads:
    def test_mask_and_distance(self, runs: Traps) -> None:
        trap = runs.new()
        with_two_channels(trap)
        changes = merged(
            OURS,
            {
                "model": {"out_channels": 2, "final_activation": ["sigmoid", "none"]},
                "loss": {"name": "channelwise", "channels": [{"name": "BCELoss"}, {"name": "L1Loss", "weight": 0.2}]},
                "eval_metric": {"name": "MeanAbsoluteError"},
                "trainer": {"log_after_iters": 2},
            },
        )
        run = trap.train(changes, iterations=4).succeeded()
        assert run.found == set()
        output, label = compared(run)
        parts = [
            float(torch.nn.functional.binary_cross_entropy(output[:, 0], label[:, 0])),
            float(torch.nn.functional.l1_loss(output[:, 1], label[:, 1])),
        ]
        assert last(run, "val_loss_avg") == pytest.approx(parts[0] + 0.2 * parts[1], rel=1e-5)
        channels = [float((output[:, c] - label[:, c]).abs().double().mean()) for c in (0, 1)]
        assert last(run) == pytest.approx(np.mean(channels), rel=1e-6)
        for phase in ("train", "val"):
            for channel in (0, 1):
                assert run.left.scalars[f"{phase}_eval_score/channel_{channel}"]
        assert [last(run, f"val_eval_score/channel_{c}") for c in (0, 1)] == pytest.approx(channels, rel=1e-6)
        assert re.search(r"val MeanAbsoluteError: channel 0 \S+, channel 1 \S+", log_of(run))

    def test_mean_and_variance(self, runs: Traps) -> None:
        trap = runs.new()
        changes = merged(
            OURS,
            {
                "model": {"out_channels": 2, "final_activation": ["none", "softplus"]},
                "loss": {"name": "GaussianNLLLoss"},
                "eval_metric": {"name": "MSE"},
            },
        )
        run = trap.train(changes, iterations=4).succeeded()
        assert run.found == set()
        output, label = compared(run)
        likelihood = torch.nn.GaussianNLLLoss()(output[:, :1], label, output[:, 1:])
        assert last(run, "val_loss_avg") == pytest.approx(float(likelihood), rel=1e-5)
        assert last(run) == pytest.approx(
            sklearn.metrics.mean_squared_error(label.ravel(), output[:, 0].ravel()), rel=1e-5
        )
        predicted = trap.predict({"model": {"out_channels": 2, "is_segmentation": ...}}).succeeded().left.prediction
        assert predicted.shape == (2, 4, 64, 64)
        assert predicted[1].min() >= 0

    def test_a_variance_that_may_be_negative_stops_before_training(self, runs: Traps) -> None:
        trap = runs.new()
        changes = merged(OURS, {"model": {"out_channels": 2}, "loss": {"name": "GaussianNLLLoss"}})
        message = stopped_with(trap.train(changes), "ConfigError")
        assert "P3D216" in message
        assert "[none, softplus]" in message


class TestOptionsOfUpstreamsNames:
    def test_beta_is_used(self, runs: Traps, traps: Traps) -> None:
        """Upstream alone trains another loss than the config says."""
        options = {"loss": {"name": "SmoothL1Loss", "beta": 20.0}}
        alone, ours = traps.new().train(options).succeeded(), runs.new().train(options).succeeded()
        assert last(alone, "val_loss_avg") != pytest.approx(last(ours, "val_loss_avg"), rel=1e-3)
        output, label = compared(ours)
        wanted = torch.nn.SmoothL1Loss(beta=20.0)(output, label)
        assert last(ours, "val_loss_avg") == pytest.approx(float(wanted), rel=1e-5)

    def test_psnr_with_a_range(self, runs: Traps, traps: Traps) -> None:
        options = {
            "eval_metric": {"name": "PSNR", "data_range": 36.0},
            "trainer": {"eval_score_higher_is_better": True},
        }
        traps.new().train(options).failed_with("ValueError")
        run = runs.new().train(options).succeeded()
        output, label = compared(run)
        metric = torchmetrics.image.PeakSignalNoiseRatio(data_range=36.0)
        metric.update(output, label)
        assert last(run) == pytest.approx(float(metric.compute()), rel=1e-5)

    def test_without_one_a_plain_config_is_left_alone_to_the_last_bit(self, runs: Traps, traps: Traps) -> None:
        plain = {"loss": {"name": "SmoothL1Loss", "ignore_index": -1}, "eval_metric": {"name": "MSE"}}
        ours, theirs = runs.new().train(plain).succeeded(), traps.new().train(plain).succeeded()
        assert ours.left.scalars == theirs.left.scalars
        for key, value in theirs.left.weights.items():
            np.testing.assert_array_equal(value, ours.left.weights[key], strict=True)
        assert "P3D206" in log_of(ours)
