"""The floor of a loss, and the best constant, against torch's own losses on all voxels at once."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch3dunet.unet3d.losses import MaskingLossWrapper, WeightedSmoothL1Loss
from pytorch3dunet.unet3d.metrics import PSNR
from scipy.optimize import minimize_scalar
from torch import nn

from p3d_regression.interval import REAL_LINE, UNIT, Interval
from p3d_regression.labels.floor import SQUARED, LossLimit, VoxelLoss
from p3d_regression.labels.moments import Block, Moments, Weights
from p3d_regression.labels.psnr import PsnrLimit
from p3d_regression.losses.registry import known, registry

LOSSES = [
    nn.MSELoss(),
    nn.L1Loss(),
    nn.SmoothL1Loss(),
    nn.SmoothL1Loss(beta=3.0),
    nn.SmoothL1Loss(beta=0.0),
    nn.HuberLoss(),
    nn.HuberLoss(delta=0.3),
    WeightedSmoothL1Loss(threshold=4.0, initial_weight=0.25),
    WeightedSmoothL1Loss(threshold=4.0, initial_weight=3.0, apply_below_threshold=False),
]
RANGES = [UNIT, Interval(1.0, 1.0), Interval(low=0.0), Interval(high=2.0), Interval(-1.0, 1.0), REAL_LINE]


def labels_of(seed: int = 0, shape: tuple[int, ...] = (2, 6, 8, 10)) -> np.ndarray:
    """Skewed labels, -3..20 or so, with many that are equal."""
    rng = np.random.default_rng(seed)
    return np.round(rng.gamma(2.0, 2.0, shape) - 1.5, 1).astype(np.float32)


def follow(limit: LossLimit | PsnrLimit, labels: np.ndarray, parts: int = 3) -> None:
    """Show labels of shape (C, D, H, W) to a limit, in blocks along D."""
    for part in np.array_split(labels, parts, axis=1):
        for channel, values in enumerate(part):
            block = Block(values, Weights.ones(values.shape))
            limit.add(channel, block, Moments.of(block))
        limit.end_patch()


def value(loss: nn.Module, output: np.ndarray, labels: np.ndarray) -> float:
    return float(loss(torch.from_numpy(output).double()[None], torch.from_numpy(labels).double()[None]))


def voxel_loss(module: nn.Module, ignored: float | None = None) -> VoxelLoss:
    """Of a loss with the options of a module."""
    loss = known(type(module).__name__)
    assert loss is not None
    assert loss.voxel_loss is not None
    attributes = {"initial_weight": "weight"}
    found = loss.voxel_loss({name: getattr(module, attributes.get(name, name)) for name in loss.parameters})
    return replace(found, ignored=ignored)


@pytest.mark.parametrize("module", LOSSES, ids=str)
class TestFloor:
    @pytest.mark.parametrize("interval", RANGES, ids=str)
    def test_is_the_loss_of_the_nearest_values_in_the_range(self, module: nn.Module, interval: Interval) -> None:
        labels = labels_of()
        limit = LossLimit(voxel_loss(module), [interval] * 2)
        follow(limit, labels)
        bound = limit.bound()
        nearest = np.clip(labels, interval.low, interval.high)
        assert bound.floor == pytest.approx(value(module, nearest, labels), rel=1e-9, abs=1e-12)
        for channel in range(2):
            one = slice(channel, channel + 1)
            assert bound.per_channel[channel] == pytest.approx(value(module, nearest[one], labels[one]), rel=1e-9)

    def test_no_output_in_the_range_is_better(self, module: nn.Module) -> None:
        labels, rng = labels_of(), np.random.default_rng(1)
        limit = LossLimit(voxel_loss(module), [UNIT] * 2)
        follow(limit, labels)
        floor = limit.bound().floor
        for scale in (0.0, 0.1, 1.0):
            output = np.clip(np.clip(labels, 0, 1) + scale * rng.normal(size=labels.shape), 0, 1)
            assert value(module, output, labels) >= floor * (1 - 1e-9)

    def test_best_constant(self, module: nn.Module) -> None:
        labels = labels_of()
        limit = LossLimit(voxel_loss(module), [UNIT] * 2)
        follow(limit, labels)
        best = []
        for one in (labels[:1], labels[1:]):

            def of(constant: float, one: np.ndarray = one) -> float:
                return value(module, np.full_like(one, constant, dtype=np.float64), one)

            # a fine grid first: scipy's search alone stops beside the kinks of an absolute value
            grid = min(np.unique(one), key=of)
            best.append(min(of(grid), minimize_scalar(of, bounds=(grid - 0.2, grid + 0.2), method="bounded").fun))
        assert limit.bound().constant == pytest.approx(np.mean(best), rel=1e-6)

    def test_ignored_labels_have_no_loss_and_are_counted(self, module: nn.Module) -> None:
        labels = labels_of()
        ignored = float(np.unique(labels)[len(np.unique(labels)) // 2])
        assert (labels == ignored).any()
        limit = LossLimit(voxel_loss(module, ignored), [UNIT] * 2)
        follow(limit, labels)
        upstreams = MaskingLossWrapper(module, ignored)
        assert limit.bound().floor == pytest.approx(value(upstreams, np.clip(labels, 0, 1), labels), rel=1e-6)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_no_number_where_the_loss_is_none(self, module: nn.Module, bad: float) -> None:
        labels = labels_of()
        labels[1, 2, 3, 4] = bad
        limit = LossLimit(voxel_loss(module), [UNIT] * 2)
        follow(limit, labels)
        assert limit.bound().floor is None
        assert limit.bound().constant is None


def test_best_constant_of_one_label() -> None:
    labels = np.full((1, 3, 4, 5), -7.25, np.float32)
    for module in LOSSES:
        limit = LossLimit(voxel_loss(module), [UNIT])
        follow(limit, labels)
        assert limit.bound().constant == pytest.approx(0.0, abs=1e-12)


def test_every_other_loss_has_no_floor() -> None:
    known_floors = {type(module).__name__ for module in LOSSES}
    losses = [registration.component for registration in registry().registrations()]
    assert {loss.name for loss in losses if loss.voxel_loss} == known_floors


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.floats(-5, 5), st.floats(0, 5))
def test_floor_of_any_labels(values: list[float], low: float, width: float) -> None:
    labels = np.array(values, np.float32).reshape(1, 1, 1, -1)
    limit = LossLimit(SQUARED, [Interval(low, low + width)])
    follow(limit, labels, parts=1)
    exact = np.mean((labels.astype(float) - np.clip(labels.astype(float), low, low + width)) ** 2)
    assert limit.bound().floor == pytest.approx(exact, rel=1e-9, abs=1e-12)
    assert limit.bound().constant == pytest.approx(np.var(labels.astype(float)), rel=1e-6, abs=1e-9)


class TestPsnr:
    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    @pytest.mark.parametrize("interval", [Interval(1.0, 1.0), Interval(0.0, 0.1), Interval(low=0.2)], ids=str)
    def test_is_upstreams_score_of_the_nearest_values(self, interval: Interval, batch_size: int) -> None:
        labels = (labels_of(shape=(1, 6, 8, 10)) / 40).clip(-1, 1)
        labels[:, :2] = np.abs(labels[:, :2])  # a batch without a negative label
        limit = PsnrLimit([interval], batch_size)
        follow(limit, labels, parts=6)
        patches = [torch.from_numpy(part)[None] for part in np.array_split(labels, 6, axis=1)]
        batches = [torch.cat(patches[i : i + batch_size]) for i in range(0, 6, batch_size)]
        nearest = [batch.clamp(interval.low, interval.high) for batch in batches]
        scores = [PSNR()(output, batch) for output, batch in zip(nearest, batches, strict=True)]
        constants = [PSNR()(torch.full_like(batch, float(labels.mean())), batch) for batch in batches]
        sizes = [len(batch) for batch in batches]
        assert limit.bound().floor == pytest.approx(np.average(scores, weights=sizes), rel=1e-5)
        assert limit.bound().constant == pytest.approx(np.average(constants, weights=sizes), rel=1e-5)
        assert limit.bound().higher_is_better

    def test_without_limit_where_the_range_holds_all_labels(self) -> None:
        limit = PsnrLimit([UNIT], 1)
        follow(limit, labels_of(shape=(1, 6, 8, 10)).clip(0, 1))
        assert limit.bound().floor is None
        assert limit.bound().constant is not None

    def test_none_where_upstream_crashes(self) -> None:
        limit = PsnrLimit([UNIT], 1)
        follow(limit, labels_of(shape=(1, 6, 8, 10)))
        assert limit.bound().floor is limit.bound().constant is None

    def test_a_patch_that_is_computed_with_in_pieces(self) -> None:
        labels = (labels_of(shape=(2, 6, 8, 10)) / 40).clip(-1, 1)
        whole, pieces = PsnrLimit([UNIT] * 2, 2), PsnrLimit([UNIT] * 2, 2)
        follow(whole, labels, parts=3)
        for part in np.array_split(labels, 3, axis=1):
            for channel, values in enumerate(part):
                for piece in np.array_split(values, 4, axis=1):
                    block = Block(piece, Weights.ones(piece.shape))
                    pieces.add(channel, block, Moments.of(block))
            pieces.end_patch()
        assert pieces.bound().floor == pytest.approx(whole.bound().floor)
        assert pieces.bound().constant == pytest.approx(whole.bound().constant)

    def test_shuffled_no_order_of_the_patches_is_better(self) -> None:
        rng = np.random.default_rng(0)
        patches = [np.clip(scale * rng.normal(size=(1, 2, 4, 4)), -1, 1) for scale in (0.01, 0.3, 0.02, 0.5, 0.9, 0.1)]
        limit = PsnrLimit([Interval(0.0, 0.05)], 2, in_order=False)
        follow(limit, np.concatenate(patches, axis=1), parts=6)
        for order in ([0, 1, 2, 3, 4, 5], [0, 2, 1, 3, 4, 5], [5, 3, 1, 4, 2, 0]):
            batches = [
                torch.from_numpy(np.stack([patches[i], patches[j]]))
                for i, j in zip(order[::2], order[1::2], strict=True)
            ]
            reached = np.mean([PSNR()(batch.clamp(0.0, 0.05).float(), batch.float()) for batch in batches])
            assert reached <= limit.bound().floor


@pytest.mark.parametrize("value", [0.1, 0.7])
def test_labels_are_compared_in_their_own_precision(value: float) -> None:
    """0.1 is no float32 number: torch ignores the label that is next to it, and weights likewise."""
    labels = np.full((1, 2, 3, 4), value, np.float32)
    labels[0, 0] = 0.9
    target = torch.from_numpy(labels)[None]
    ignoring = LossLimit(voxel_loss(nn.L1Loss(), value), [Interval(0.0, 0.0)])
    follow(ignoring, labels, parts=1)
    upstreams = MaskingLossWrapper(nn.L1Loss(), value)(torch.zeros_like(target), target)
    assert ignoring.bound().floor == pytest.approx(upstreams.item())
    module = WeightedSmoothL1Loss(threshold=value, initial_weight=5.0)
    weighting = LossLimit(voxel_loss(module), [Interval(0.0, 0.0)])
    follow(weighting, labels, parts=1)
    assert weighting.bound().floor == pytest.approx(module(torch.zeros_like(target), target).item())
