"""The size of the gradient, for any unit of the labels."""

import copy

import pytest
import torch
from torch import nn

from p3d_regression.activations.registry import resolve
from p3d_regression.losses.build import build
from p3d_regression.losses.build import resolve as resolve_loss
from p3d_regression.losses.mask import Mask
from p3d_regression.scaling.gradient import GradientSize, gradient_size
from p3d_regression.scaling.target import TargetScaling
from p3d_regression.scaling.terms import Numbers

IN_MM = Numbers(12.5, 13.0)
IN_METRES = Numbers(0.0125, 0.013)


def trial(
    loss: object, *numbers: Numbers, final: object = "none", mask: float | None = None, more_labels: int = 0
) -> GradientSize | None:
    channels = len(numbers)
    targets = [(channel, False) for channel in range(channels)]
    resolved, masked = None, None if mask is None else Mask(mask)
    if isinstance(loss, dict):
        resolved = resolve_loss(loss, channels)
        targets = resolved.targets(channels)
        loss = build(resolved, masked)
    assert isinstance(loss, nn.Module)
    ranges, scaling = resolve(final, channels).ranges, TargetScaling(numbers)
    return gradient_size(loss, scaling, ranges, targets, loss=resolved, mask=masked, more_labels=more_labels)


@pytest.mark.parametrize(
    ("loss", "power"),
    [
        ({"name": "MSELoss"}, 2),
        ({"name": "L1Loss"}, 1),
        ({"name": "HuberLoss", "delta": 4.0}, 2),
        ({"name": "SmoothL1Loss", "beta": 4.0}, 1),
        ({"name": "WeightedSmoothL1Loss", "threshold": 20.0, "initial_weight": 0.001}, 0.9),
        ({"name": "weighted_sum", "losses": [{"name": "MSELoss", "weight": 3}, {"name": "MSELoss"}]}, 2),
    ],
)
@pytest.mark.parametrize("mask", [None, -1.0])
def test_one_over_the_units_of_the_loss(loss: dict[str, object], power: float, mask: float | None) -> None:
    found = trial(loss, Numbers(12.5, 13.0), mask=mask)
    assert found is not None
    # of that with weights by a threshold 1 beside the parabola is another one
    assert found.factor == pytest.approx(13**-power, rel=1e-6 if power != 0.9 else 0.5)
    assert found.shares == (1.0,)


@pytest.mark.parametrize("name", ["delta", "beta", "threshold"])
def test_what_a_loss_has_in_units_of_the_labels_is_taken_as_such(name: str) -> None:
    losses = {"delta": "HuberLoss", "beta": "SmoothL1Loss", "threshold": "WeightedSmoothL1Loss"}
    more = {"initial_weight": 0.01} if name == "threshold" else {}
    mm, metres = (
        trial({"name": losses[name], name: value, **more}, n) for value, n in ((4.0, IN_MM), (0.004, IN_METRES))
    )
    assert mm is not None
    assert metres is not None
    power = {"delta": 2, "beta": 1}
    if name in power:
        assert metres.factor * 0.001 ** power[name] == pytest.approx(mm.factor, rel=1e-6)


@pytest.mark.parametrize("std", [13.0, 1.0e-4])
def test_a_variance_has_a_gradient_without_units(std: float) -> None:
    loss = {"name": "GaussianNLLLoss", "eps": 1.0e-6 * std**2}
    found = trial(loss, Numbers(5.0, std), Numbers(0.0, std * std), final=["none", "softplus"])
    assert found is not None
    assert found.factor == pytest.approx(1, rel=1e-6)


def test_where_nothing_is_scaled_it_is_one() -> None:
    for loss in ({"name": "MSELoss"}, {"name": "PoissonNLLLoss", "log_input": False}):
        found = trial(loss, Numbers(0.0, 1.0), final="softplus")
        assert found is not None
        assert found.factor == 1


def test_channels_of_unequal_units_have_unequal_shares() -> None:
    found = trial({"name": "MSELoss"}, Numbers(0.0, 1000.0), Numbers(0.0, 0.001))
    assert found is not None
    assert found.shares[0] == pytest.approx(1)
    assert found.shares[1] < 1e-10
    weighted = [{"name": "MSELoss", "weight": 1.0e-6}, {"name": "MSELoss", "weight": 1.0e6}]
    found = trial({"name": "channelwise", "channels": weighted}, Numbers(0.0, 1000.0), Numbers(0.0, 0.001))
    assert found is not None
    assert found.shares == pytest.approx((0.5**0.5, 0.5**0.5), rel=0.1)


def test_a_mask_and_a_last_channel_that_is_left_out() -> None:
    class SkipsLast(nn.Module):
        def forward(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return nn.functional.mse_loss(output, label[:, :-1])

    found = trial(SkipsLast(), Numbers(12.5, 13.0), more_labels=1)
    assert found is not None
    assert found.factor == pytest.approx(1 / 169, rel=1e-6)


class Sobel(nn.Module):
    """A loss of neighbourhoods, with a kernel in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(1, 1, 2, 2, 2) / 8)

    def forward(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv3d(output - label, self.kernel).square().mean()


class Counts(nn.Module):
    """A loss that remembers what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return (output - label).square().mean() + 0 * torch.rand(1).sum()


def test_losses_of_other_people() -> None:
    found = trial(Sobel(), Numbers(12.5, 13.0))
    assert found is not None
    assert found.factor == pytest.approx(1 / 169, rel=1e-4)
    loss = Counts()
    before, seed = copy.deepcopy(loss.state_dict()), torch.get_rng_state()
    assert trial(loss, Numbers(12.5, 13.0)) is not None
    assert loss.state_dict() == before
    assert torch.equal(torch.get_rng_state(), seed)


def test_a_loss_that_cannot_be_tried() -> None:
    class Strange(nn.Module):
        def forward(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            raise ValueError("wants something else")

    assert trial(Strange(), Numbers(12.5, 13.0)) is None
    assert trial(nn.CrossEntropyLoss(), Numbers(12.5, 13.0)) is None
