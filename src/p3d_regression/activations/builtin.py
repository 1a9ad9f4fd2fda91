"""The project's own final activations."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from p3d_regression.activations import modules
from p3d_regression.activations.activation import Activation
from p3d_regression.interval import NON_NEGATIVE, REAL_LINE, Interval


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
            modules.Exp,
            range=NON_NEGATIVE,
            summary="positive values over many orders of magnitude; the network regresses their logarithm",
        ),
        Activation(
            "bounded",
            modules.Bounded,
            range=lambda arguments, channels: Interval(arguments["low"], arguments["high"]),
            summary="values between two physical bounds: a sigmoid from low to high",
            example={"low": 0.0, "high": 70.0},
        ),
        Activation(
            "lower_bounded",
            modules.LowerBounded,
            range=lambda arguments, channels: Interval(arguments["low"]),
            summary="values above a bound that is not 0, such as CT numbers above -1000",
            example={"low": -1000.0},
        ),
        Activation(
            "upper_bounded",
            modules.UpperBounded,
            range=_below_high,
            summary="values below a bound, such as potentials or attenuation in dB below 0",
            example={"high": 0.0},
        ),
        Activation(
            "unit_vector",
            modules.UnitVector,
            range=Interval(-1.0, 1.0),
            summary="directions: the channels of each voxel as a vector of length 1",
            over_channels=True,
        ),
    ]


def _below_high(arguments: Mapping[str, Any], channels: int) -> Interval:
    return Interval(high=arguments["high"])
