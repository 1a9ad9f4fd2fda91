"""Losses against plain torch on the voxels that count, gradients too."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from p3d_regression.errors import ConfigError
from p3d_regression.losses.build import build, resolve
from p3d_regression.losses.criterion import Channelwise, WeightedSum
from p3d_regression.losses.mask import mask_of
from p3d_regression.losses.registry import registry
from p3d_regression.losses.spec import CHANNELWISE, WEIGHTED_SUM

SHAPE = (2, 2, 3, 5, 4)

#: Every loss of voxels, with arguments that are not the defaults -> torch's own, of flat outputs and labels.
PLAIN: dict[str, tuple[dict[str, Any], Any]] = {
    "MSELoss": ({}, nn.MSELoss()),
    "L1Loss": ({}, nn.L1Loss()),
    "SmoothL1Loss": ({"beta": 0.3}, nn.SmoothL1Loss(beta=0.3)),
    "HuberLoss": ({"delta": 0.3}, nn.HuberLoss(delta=0.3)),
    "PoissonNLLLoss": ({"log_input": False, "full": True}, nn.PoissonNLLLoss(log_input=False, full=True)),
    "BCELoss": ({}, nn.BCELoss()),
    "BCEWithLogitsLoss": ({"pos_weight": 3.0}, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0, dtype=torch.float64))),
    "KLDivLoss": ({"log_target": True}, nn.KLDivLoss(log_target=True, reduction="mean")),
    "HingeEmbeddingLoss": ({"margin": 0.7}, nn.HingeEmbeddingLoss(margin=0.7)),
    "SoftMarginLoss": ({}, nn.SoftMarginLoss()),
}


def example(name: str) -> tuple[Tensor, Tensor]:
    """Output and label in double precision, inside the ranges that the loss is for."""
    generator = torch.Generator().manual_seed(5)
    output, label = (torch.rand(SHAPE, generator=generator, dtype=torch.float64) * 0.98 + 0.01 for _ in range(2))
    if name == "KLDivLoss":
        return -output, -label
    if name in ("HingeEmbeddingLoss", "SoftMarginLoss"):
        label = torch.where(label > 0.5, 1.0, -1.0)
    return output, label


def hide(label: Tensor, ignored: float) -> tuple[Tensor, Tensor]:
    """About a third of the labels replaced by what does not count, and where it counts."""
    counts = torch.rand(label.shape, generator=torch.Generator().manual_seed(6)) > 0.3
    return torch.where(counts, label, ignored), counts


def value_and_gradient(loss: Any, output: Tensor, label: Tensor, *more: Tensor) -> tuple[Tensor, Tensor]:
    output = output.clone().requires_grad_()
    value = loss(output, label, *more)
    value.backward()
    assert output.grad is not None
    return value.detach(), output.grad


def criterion(section: dict[str, Any], channels: int | None = None) -> Any:
    return build(resolve(section, channels), mask_of(section.get("ignore_index")))


def test_every_loss_of_voxels_is_compared() -> None:
    of_torch = [
        registration.component for registration in registry().registrations() if registration.origin == "torch.nn"
    ]
    assert {loss.name for loss in of_torch if not loss.variance} == set(PLAIN)


@pytest.mark.parametrize("name", PLAIN)
class TestEveryLoss:
    def test_without_mask_it_is_torchs(self, name: str) -> None:
        arguments, plain = PLAIN[name]
        output, label = example(name)
        ours = value_and_gradient(criterion({"name": name, **arguments}), output, label)
        torch.testing.assert_close(ours, value_and_gradient(plain, output, label), rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("ignored", [math.nan, -7.0])
    def test_with_mask_it_is_torchs_of_the_voxels_that_count(self, name: str, ignored: float) -> None:
        arguments, plain = PLAIN[name]
        output, label = example(name)
        label, counts = hide(label, ignored)
        # what the network says there must not matter, whatever it is
        output = torch.where(counts, output, math.inf)
        section = {"name": name, **arguments, "ignore_index": ignored}
        value, gradient = value_and_gradient(criterion(section), output, label)
        wanted, compressed = value_and_gradient(plain, output[counts], label[counts])
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(gradient[counts], compressed, rtol=1e-12, atol=1e-14)
        assert (gradient[~counts] == 0).all()

    def test_gradcheck(self, name: str) -> None:
        arguments, _ = PLAIN[name]
        output, label = example(name)
        label, _ = hide(label, math.nan)
        loss = criterion({"name": name, **arguments, "ignore_index": math.nan})
        assert torch.autograd.gradcheck(lambda x: loss(x, label), output.requires_grad_())

    def test_of_no_voxel_at_all_it_is_zero(self, name: str) -> None:
        arguments, _ = PLAIN[name]
        output, label = example(name)
        loss = criterion({"name": name, **arguments, "ignore_index": math.nan})
        value, gradient = value_and_gradient(loss, output, torch.full_like(label, math.nan))
        assert value == 0
        assert (gradient == 0).all()

    def test_weights_of_voxels(self, name: str) -> None:
        """As old versions of upstream hand them on: one volume of weights for all channels."""
        arguments, _ = PLAIN[name]
        output, label = example(name)
        weight = torch.rand(SHAPE[0], *SHAPE[2:], dtype=torch.float64)
        label, counts = hide(label, math.nan)
        loss = criterion({"name": name, **arguments, "ignore_index": math.nan})
        unweighted = criterion({"name": name, **arguments})
        per_voxel = unweighted.loss(output[counts], label[counts])
        weights = weight[:, None].expand(SHAPE)[counts]
        torch.testing.assert_close(loss(output, label, weight), (per_voxel * weights).sum() / weights.sum())
        torch.testing.assert_close(loss(output, label, weight[:, None]), loss(output, label, weight))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gaussian_likelihood_is_torchs(full: bool, masked: bool) -> None:
    output, label = example("GaussianNLLLoss")
    output = torch.cat([output, 0.5 * output + 1e-9], dim=1)
    output[:, 2:, 0] = 1e-8  # smaller than eps
    counts = torch.ones_like(label, dtype=torch.bool)
    if masked:
        label, counts = hide(label, math.nan)
    plain = nn.GaussianNLLLoss(full=full, eps=1e-4)

    def compressed(x: Tensor, y: Tensor) -> Tensor:
        return plain(x[:, :2][counts], y[counts], x[:, 2:][counts])

    section = {"name": "GaussianNLLLoss", "full": full, "eps": 1e-4} | ({"ignore_index": math.nan} if masked else {})
    ours = value_and_gradient(criterion(section, 4), output, label)
    torch.testing.assert_close(ours, value_and_gradient(compressed, output, label), rtol=1e-12, atol=1e-14)


def test_upstreams_weighted_loss_is_upstreams() -> None:
    from pytorch3dunet.unet3d.losses import WeightedSmoothL1Loss

    output, label = example("SmoothL1Loss")
    for below in (True, False):
        options = {"threshold": 0.4, "initial_weight": 0.1, "apply_below_threshold": below}
        ours = criterion({"name": "WeightedSmoothL1Loss", **options})
        assert torch.allclose(ours(output, label), WeightedSmoothL1Loss(**options)(output, label), rtol=1e-12)


def test_channelwise_is_the_sum_over_the_channels() -> None:
    output, label = example("BCELoss")
    output = torch.cat([output, output[:, :1]], dim=1)
    section = {
        "name": "channelwise",
        "ignore_index": math.nan,
        "channels": [{"name": "BCELoss"}, {"name": "gaussian_nll_loss", "weight": 0.2}],
    }
    label[0, 0, 0], label[1, 1, 2] = math.nan, math.nan
    loss = criterion(section, 3)
    assert isinstance(loss, Channelwise)
    first, second = ~label[:, 0].isnan(), ~label[:, 1].isnan()
    wanted = functional.binary_cross_entropy(output[:, 0][first], label[:, 0][first]) + 0.2 * nn.GaussianNLLLoss()(
        output[:, 1][second], label[:, 1][second], output[:, 2][second]
    )
    torch.testing.assert_close(loss(output, label), wanted, rtol=1e-12, atol=1e-14)
    weight = torch.rand(SHAPE[0], 1, *SHAPE[2:], dtype=torch.float64)
    ones = torch.ones_like(weight)
    assert torch.allclose(loss(output, label, ones), wanted)
    assert not torch.allclose(loss(output, label, weight), wanted)


def test_sums_inside_of_sums_are_weighed_once() -> None:
    output, label = example("MSELoss")
    inner = {"name": "weighted_sum", "weight": 3, "losses": [{"name": "L1Loss", "weight": 2}, "MSELoss"]}
    l1, mse = functional.l1_loss, functional.mse_loss
    outer = criterion({"name": "channelwise", "channels": [inner, "HuberLoss"]}, 2)
    parts = [(output[:, c], label[:, c]) for c in (0, 1)]
    wanted = 3 * (2 * l1(*parts[0]) + mse(*parts[0])) + functional.huber_loss(*parts[1])
    torch.testing.assert_close(outer(output, label), wanted, rtol=1e-12, atol=1e-14)
    alone = criterion({**inner, "name": "Sum"})
    assert isinstance(alone, WeightedSum)
    torch.testing.assert_close(alone(output, label), 3 * (2 * l1(output, label) + mse(output, label)))
    factor = criterion({"name": "L1Loss", "weight": 0.5})
    torch.testing.assert_close(factor(output, label), 0.5 * l1(output, label))


def test_upstreams_dice_stands_beside_others() -> None:
    from pytorch3dunet.unet3d.losses import DiceLoss

    output, label = example("BCELoss")
    label = (label > 0.5).double()
    section = {"name": "channelwise", "channels": [{"name": "DiceLoss", "normalization": "none"}, "L1Loss"]}
    wanted = DiceLoss(normalization="none")(output[:, :1], label[:, :1]) + functional.l1_loss(output[:, 1], label[:, 1])
    assert torch.allclose(criterion(section, 2)(output, label), wanted)


@pytest.mark.parametrize(
    ("section", "shape", "fix"),
    [
        ({"name": "HuberLoss"}, (2, 3, 5, 4), "expand_dims: true"),
        ({"name": "HuberLoss"}, (2, 1, 3, 5, 4), "model.out_channels"),
        ({"name": "HuberLoss"}, (2, 2, 3, 5, 1), "transforms"),
        ({"name": "GaussianNLLLoss"}, (2, 2, 3, 5, 4), "model.out_channels"),
        ({"name": "channelwise", "channels": ["L1Loss", "L1Loss"]}, (2, 1, 3, 5, 4), "one entry per channel"),
        ({"name": "weighted_sum", "losses": ["L1Loss", "L1Loss"]}, (2, 1, 3, 5, 4), "model.out_channels"),
        ({"name": "BCEDiceLoss", "weight": 2}, (2, 3, 5, 4), "expand_dims: true"),
    ],
)
def test_labels_that_would_be_broadcast_are_refused(section: dict[str, Any], shape: tuple[int, ...], fix: str) -> None:
    output = torch.rand(SHAPE)
    with pytest.raises(ConfigError) as caught:
        criterion(section)(output, torch.rand(shape))
    assert "(2, 2, 3, 5, 4)" in str(caught.value) or "(2, 1, 3, 5, 4)" in str(caught.value)
    assert str(shape) in str(caught.value)
    assert fix in str(caught.value)


def test_whole_numbers_in_labels_are_compared_as_such() -> None:
    """16777217 is no float32: cast first, it would be the value that is ignored."""
    label = torch.tensor([16777216, 16777217], dtype=torch.int64).reshape(1, 2, 1, 1, 1)
    output = torch.zeros(1, 2, 1, 1, 1, requires_grad=True)
    criterion({"name": "L1Loss", "ignore_index": 16777216})(output, label).backward()
    assert output.grad is not None
    assert output.grad.flatten().tolist() == [0.0, -1.0]


def test_nothing_random_is_drawn() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    criterion({"name": "HuberLoss"})
    assert torch.equal(before, torch.random.get_rng_state())


def test_composed_losses_can_be_printed_and_moved() -> None:
    loss = criterion({"name": CHANNELWISE, "channels": ["L1Loss", {"name": WEIGHTED_SUM, "losses": ["MSELoss"]}]}, 2)
    assert "L1Loss" in str(loss.to("cpu"))
    assert loss.state_dict() == {}
