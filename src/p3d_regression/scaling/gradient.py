"""How large the gradient of a loss would be if the labels were standardised.

The loss of a scaled output is in the units of the labels, and so is its gradient: for MSELoss it is ``std`` squared
times that of standardised labels. An optimizer does not see past that: the steps of SGD are as large as the gradient, a
weight decay stands beside it, and for strains of 1e-4 it is smaller than the ``eps`` of Adam. Multiplied by one number
it is as large as if the labels were standardised; what the training minimises, and in which units the loss is shown,
stays.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from p3d_regression.activations.ranges import Interval
from p3d_regression.scaling.spec import IDENTITY, Numbers
from p3d_regression.scaling.target import TargetScaling

#: Of the trial, (D, H, W): enough for losses that look at neighbourhoods.
_SHAPE = (4, 16, 16)

#: Of the residuals, in standard deviations: about 1, and no value that a mask is likely to have.
_RESIDUAL = 1.0371


def factor(
    criterion: nn.Module,
    scaling: TargetScaling,
    ranges: Sequence[Interval],
    targets: Sequence[tuple[int, bool]],
    *,
    more_labels: int = 0,
    device: "torch.device | str" = "cpu",
) -> float | None:
    """Return by what the gradient of a loss has to be multiplied; None if it cannot be said.

    Args:
        criterion: maps output and labels, both of shape (N, C, D, H, W), to a number.
        scaling: of the output.
        ranges: of the final activation, for each output channel.
        targets: for each output channel the channel of the labels that it predicts, and whether it is their variance
            that it predicts.
        more_labels: channels of the labels behind these, which the loss leaves out.
        device: where the loss is computed.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            standard, own = (
                _size_of_gradient(criterion, numbers, ranges, targets, more_labels, device)
                for numbers in ([IDENTITY] * len(ranges), scaling.numbers)
            )
    except Exception:
        return None  # a loss that asks for other labels than these says so when it gets the first batch
    found = standard / own if own else math.nan
    return found if math.isfinite(found) and found > 0 else None


def _size_of_gradient(
    criterion: nn.Module,
    numbers: Sequence[Numbers],
    ranges: Sequence[Interval],
    targets: Sequence[tuple[int, bool]],
    more_labels: int,
    device: "torch.device | str",
) -> float:
    """With respect to the final activation, before it is scaled, at outputs about one standard deviation off."""
    pairs = [_pair(interval, is_variance) for interval, (_, is_variance) in zip(ranges, targets, strict=True)]
    activated = torch.stack([output for output, _ in pairs])[None].to(device).requires_grad_()
    mean, std = (
        torch.tensor([getattr(n, name) for n in numbers], dtype=torch.float64, device=device).view(1, -1, 1, 1, 1)
        for name in ("mean", "std")
    )
    wanted = mean + std * torch.stack([label for _, label in pairs])[None].to(device)
    of_labels = [channel for channel, (_, is_variance) in enumerate(targets) if not is_variance]
    labels = wanted[:, of_labels]
    labels = torch.cat([labels, torch.zeros_like(labels[:, :1]).expand(-1, more_labels, -1, -1, -1)], dim=1)
    (gradient,) = torch.autograd.grad(criterion(mean + std * activated, labels), activated)
    return float(gradient.norm())


def _pair(interval: Interval, is_variance: bool) -> tuple[Tensor, Tensor]:
    """Output and label of a channel with standardised labels, inside its range."""
    signs = torch.ones(_SHAPE, dtype=torch.float64)
    signs.view(-1)[::2] = -1
    if is_variance:
        return torch.ones_like(signs), torch.ones_like(signs)
    if math.isinf(interval.low) and math.isinf(interval.high):
        return torch.zeros_like(signs), signs * _RESIDUAL
    low = interval.low if math.isfinite(interval.low) else interval.high - 4 * _RESIDUAL
    high = interval.high if math.isfinite(interval.high) else low + 4 * _RESIDUAL
    middle = (low + high) / 2
    return torch.full_like(signs, middle), middle + signs * (high - low) / 4
