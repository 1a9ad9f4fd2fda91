"""Which values a final activation can produce."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from p3d_regression.interval import NON_NEGATIVE, NON_POSITIVE, REAL_LINE, UNIT, Interval

#: From the arguments of an activation, by name, and the number of channels that it acts on.
RangeOf = Callable[[Mapping[str, Any], int], Interval]

# The minimum of each, where its derivative is zero, and SELU's limit: found with mpmath to 30 digits.
_SILU_MIN = -0.278464542761073795
_MISH_MIN = -0.308843413017250406
_GELU_MIN = {"none": -0.169971207479903662, "tanh": -0.170040750571254051}
_SELU_MIN = -1.7580993408473766


def constant(interval: Interval) -> RangeOf:
    """The range of an activation that has the same one whatever its arguments are."""
    return lambda arguments, channels: interval


def _threshold(arguments: Mapping[str, Any], channels: int) -> Interval:
    return Interval(min(arguments["threshold"], arguments["value"]))


def _elu(arguments: Mapping[str, Any], channels: int) -> Interval:
    # alpha * (exp(x) - 1) for x < 0
    return Interval(min(0.0, -arguments["alpha"]))


def _celu(arguments: Mapping[str, Any], channels: int) -> Interval:
    # alpha * (exp(x / alpha) - 1) for x < 0, which has no lower bound if alpha is negative
    alpha = arguments["alpha"]
    return Interval(-alpha) if alpha > 0 else REAL_LINE


def _leaky_relu(arguments: Mapping[str, Any], channels: int) -> Interval:
    return REAL_LINE if arguments["negative_slope"] > 0 else NON_NEGATIVE


def _softplus(arguments: Mapping[str, Any], channels: int) -> Interval:
    # log(1 + exp(beta * x)) / beta, but x itself where beta * x > threshold
    beta, switch = arguments["beta"], arguments["threshold"] / arguments["beta"]
    return Interval(min(0.0, switch)) if beta > 0 else Interval(-math.inf, max(0.0, switch))


def _over_channels(interval: Interval, *, alone: float) -> RangeOf:
    return lambda arguments, channels: interval if channels > 1 else Interval(alone, alone)


#: Class of ``torch.nn`` -> its range.
OF_TORCH_NN: dict[str, RangeOf] = {
    "CELU": _celu,
    "ELU": _elu,
    "GELU": lambda arguments, channels: Interval(_GELU_MIN[arguments["approximate"]]),
    "Hardshrink": constant(REAL_LINE),
    "Hardsigmoid": constant(UNIT),
    "Hardswish": constant(Interval(-0.375)),
    "Hardtanh": lambda arguments, channels: Interval(arguments["min_val"], arguments["max_val"]),
    "LeakyReLU": _leaky_relu,
    "LogSigmoid": constant(NON_POSITIVE),
    "LogSoftmax": _over_channels(NON_POSITIVE, alone=0.0),
    "Mish": constant(Interval(_MISH_MIN)),
    "ReLU": constant(NON_NEGATIVE),
    "ReLU6": constant(Interval(0.0, 6.0)),
    "SELU": constant(Interval(_SELU_MIN)),
    "Sigmoid": constant(UNIT),
    "SiLU": constant(Interval(_SILU_MIN)),
    "Softmax": _over_channels(UNIT, alone=1.0),
    "Softmin": _over_channels(UNIT, alone=1.0),
    "Softplus": _softplus,
    "Softshrink": constant(REAL_LINE),
    "Softsign": constant(Interval(-1.0, 1.0)),
    "Tanh": constant(Interval(-1.0, 1.0)),
    "Tanhshrink": constant(REAL_LINE),
    "Threshold": _threshold,
}
