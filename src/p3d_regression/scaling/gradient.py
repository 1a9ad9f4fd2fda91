"""How large the gradient of a loss would be if the labels were standardised.

The loss of a scaled output is in the units of the labels, and so is its gradient: for MSELoss it is ``std`` squared
times that of standardised labels. An optimizer does not see past that: the steps of SGD are as large as the gradient, a
weight decay is added to it, and for strains of 1e-4 it is smaller than the ``eps`` of Adam. Multiplied by one number
it is as large as if the labels were standardised; what the training minimises, and in which units the loss is shown,
stays.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from p3d_regression.interval import Interval
from p3d_regression.losses.build import build
from p3d_regression.losses.mask import Mask
from p3d_regression.losses.resolved import Resolved
from p3d_regression.scaling.target import TargetScaling
from p3d_regression.scaling.terms import IDENTITY, Numbers

#: Of the trial, (D, H, W): enough for losses that look at neighbourhoods.
_SHAPE = (8, 16, 16)


@dataclass(frozen=True)
class GradientSize:
    """The gradient of a loss at outputs about one standard deviation off.

    Attributes:
        factor: by which it has to be multiplied.
        shares: of it that each output channel has.
    """

    factor: float
    shares: tuple[float, ...]


def gradient_size(
    criterion: nn.Module,
    scaling: TargetScaling,
    ranges: Sequence[Interval],
    targets: Sequence[tuple[int, bool]],
    *,
    loss: Resolved | None = None,
    mask: Mask | None = None,
    more_labels: int = 0,
) -> GradientSize | None:
    """Compare the gradients of a loss for scaled and for standardised labels; None if that cannot be done.

    Args:
        criterion: maps output and labels, both of shape (N, C, D, H, W), to a number. It stays as it is.
        scaling: of the output.
        ranges: of the final activation, for each output channel.
        targets: for each output channel the channel of the labels that it predicts, and whether it is their variance
            that it predicts.
        loss: what is known of the criterion, and which of its arguments are in the units of the labels; None for
            nothing.
        mask: of the criterion.
        more_labels: last channels of the labels, which the loss skips.
    """
    # in double precision, because labels may be 1e-20; a loss with a kernel of its own may not take that
    for dtype in (torch.float64, torch.float32):
        try:
            # nothing random is taken from the user's seed, and no loss that remembers what it has seen sees this
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                standard: nn.Module
                own = _gradient(_copy(criterion), scaling.sizes, ranges, targets, more_labels, dtype)
                units = _units(scaling.sizes) if loss and loss.has_units else None
                if loss and units:
                    # without pytorch-3dunet's wrapper, which drops a channel of the labels
                    standard, more = build(loss.standardised(units.mean, units.std), mask), 0
                else:
                    standard, more = _copy(criterion), more_labels
                wanted = _gradient(standard, [IDENTITY] * len(ranges), ranges, targets, more, dtype)
        except Exception:
            continue  # what is wrong with a loss shows at the first batch
        size = float(own.norm())
        found = float(wanted.norm()) / size if size else math.nan
        if math.isfinite(found) and found > 0:
            return GradientSize(found, tuple(float(part.norm()) / size for part in own.unbind(1)))
    return None


def _copy(criterion: nn.Module) -> nn.Module:
    return copy.deepcopy(criterion).to("cpu")


def _units(numbers: Sequence[Numbers]) -> Numbers | None:
    """The scaling that all channels share; None if they have several."""
    first = next((n for n in numbers if n != IDENTITY), IDENTITY)
    # without a mean: a variance, whose std is the square of another one
    return None if any(n.mean != 0 and n != first for n in numbers) else first


def _gradient(
    criterion: nn.Module,
    numbers: Sequence[Numbers],
    ranges: Sequence[Interval],
    targets: Sequence[tuple[int, bool]],
    more_labels: int,
    dtype: torch.dtype,
) -> Tensor:
    """With respect to the final activation, before it is scaled; shape (1, C, D, H, W)."""
    generator = torch.Generator().manual_seed(0)
    pairs = [
        _pair(interval, is_variance, generator) for interval, (_, is_variance) in zip(ranges, targets, strict=True)
    ]
    activated = torch.stack([output for output, _ in pairs])[None].to(dtype).requires_grad_()
    mean, std = (
        torch.tensor([getattr(n, name) for n in numbers], dtype=dtype).view(1, -1, 1, 1, 1) for name in ("mean", "std")
    )
    wanted = mean + std * torch.stack([label for _, label in pairs])[None].to(dtype)
    of_labels = [channel for channel, (_, is_variance) in enumerate(targets) if not is_variance]
    labels = wanted[:, of_labels]
    labels = torch.cat([labels, torch.zeros_like(labels[:, :1]).expand(-1, more_labels, -1, -1, -1)], dim=1)
    (gradient,) = torch.autograd.grad(criterion(mean + std * activated, labels), activated)
    return gradient.double()


def _pair(interval: Interval, is_variance: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Output and label of a channel with standardised labels, inside its range."""
    noise = torch.randn(_SHAPE, dtype=torch.float64, generator=generator)
    if is_variance:
        return torch.ones_like(noise), torch.ones_like(noise)
    if math.isinf(interval.low) and math.isinf(interval.high):
        return torch.zeros_like(noise), noise
    low = interval.low if math.isfinite(interval.low) else interval.high - 4
    high = interval.high if math.isfinite(interval.high) else low + 4
    middle = (low + high) / 2
    return torch.full_like(noise, middle), middle + (high - low) / 2 * torch.tanh(noise / 2)
