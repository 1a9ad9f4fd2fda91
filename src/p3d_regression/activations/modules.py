"""The project's own final activations, and the module that applies one to each channel. No parameters, no buffers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from p3d_regression.activations.activation import Activation
from p3d_regression.interval import NON_NEGATIVE, REAL_LINE, Interval


class Exp(nn.Module):
    """exp(x): the output is the exponential of what the network regresses, as with a logarithmic link function.

    In float32 it overflows to infinity from x = 88.7 on.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


class Bounded(nn.Module):
    """A sigmoid from ``low`` to ``high``, in the units of the labels.

    Args:
        low: the value for x = -inf.
        high: the value for x = +inf.

    Raises:
        ValueError: ``low`` is not less than ``high``.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"low ({low:g}) must be less than high ({high:g})")
        self.low = low
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        # clamped, because the sum may round to a number just outside
        return torch.clamp(self.low + (self.high - self.low) * torch.sigmoid(x), self.low, self.high)

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"


class LowerBounded(nn.Module):
    """low + softplus(x): above ``low``, and close to ``low + x`` where that is far from the bound.

    Args:
        low: the bound, in the units of the labels.
    """

    def __init__(self, low: float) -> None:
        super().__init__()
        self.low = low

    def forward(self, x: Tensor) -> Tensor:
        return self.low + F.softplus(x)

    def extra_repr(self) -> str:
        return f"low={self.low}"


class UpperBounded(nn.Module):
    """high - softplus(-x): below ``high``, and close to ``high + x`` where that is far from the bound.

    Args:
        high: the bound, in the units of the labels.
    """

    def __init__(self, high: float) -> None:
        super().__init__()
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        return self.high - F.softplus(-x)

    def extra_repr(self) -> str:
        return f"high={self.high}"


class UnitVector(nn.Module):
    """The channels of a voxel as a vector of length 1: x / max(|x|, eps).

    Args:
        eps: shorter vectors are divided by this instead of their length; greater than 0.

    Raises:
        ValueError: ``eps`` is not greater than 0.
    """

    def __init__(self, eps: float = 1e-12) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps ({eps:g}) must be greater than 0")
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # in half precision a tiny eps would be 0, and a zero vector NaN
        return F.normalize(x, dim=1, eps=max(self.eps, torch.finfo(x.dtype).tiny))

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class PerChannel(nn.Module):
    """Applies one activation after the other to consecutive channels.

    Args:
        activations: modules that keep the shape of (N, c, ...).
        sizes: of how many channels each of them gets; they add up to the channels of the input.
    """

    def __init__(self, activations: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        self.activations = nn.ModuleList(activations)
        self.sizes = list(sizes)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.sizes, dim=1)
        return torch.cat([activation(part) for activation, part in zip(self.activations, parts, strict=True)], dim=1)

    def extra_repr(self) -> str:
        return f"channels={self.sizes}"


def activations() -> list[Activation]:
    return [
        Activation(
            "none",
            nn.Identity,
            range=REAL_LINE,
            summary="any value: signed distances, denoised or normalised intensities, strain",
            aliases=("identity", "linear", "null"),
        ),
        Activation(
            "exp",
            Exp,
            range=NON_NEGATIVE,
            summary="positive values over many orders of magnitude; the network regresses their logarithm",
        ),
        Activation(
            "bounded",
            Bounded,
            range=lambda arguments, channels: Interval(arguments["low"], arguments["high"]),
            summary="values between two physical bounds: a sigmoid from low to high",
            example={"low": 0.0, "high": 70.0},
        ),
        Activation(
            "lower_bounded",
            LowerBounded,
            range=lambda arguments, channels: Interval(arguments["low"]),
            summary="values above a bound that is not 0, such as CT numbers above -1000",
            example={"low": -1000.0},
        ),
        Activation(
            "upper_bounded",
            UpperBounded,
            range=lambda arguments, channels: Interval(high=arguments["high"]),
            summary="values below a bound, such as potentials or attenuation in dB below 0",
            example={"high": 0.0},
        ),
        Activation(
            "unit_vector",
            UnitVector,
            range=Interval(-1.0, 1.0),
            summary="directions: the channels of each voxel as a vector of length 1",
            over_channels=True,
        ),
    ]
