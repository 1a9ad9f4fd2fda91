"""The activations of ``torch.nn``: whatever the installed torch has, and reasons for what cannot be used."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import activation as home

from p3d_regression.activations.activation import Activation, RangeOf
from p3d_regression.components.component import Refused
from p3d_regression.components.parameters import parameters_of
from p3d_regression.interval import NON_NEGATIVE, NON_POSITIVE, REAL_LINE, UNIT, Interval
from p3d_regression.text import first_sentence, fold

#: Arguments of the constructors that a config may not give.
_HIDDEN = {
    "dim": "it always acts over the channels",
    "inplace": "it saves memory and changes no value",
    "min_value": "it is torch's old spelling of min_val",
    "max_value": "it is torch's old spelling of max_val",
}

_ALIASES = {"SiLU": ("swish",)}

# The minimum of each, where its derivative is zero, and SELU's limit: found with mpmath to 30 digits.
_SILU_MIN = -0.278464542761073795
_MISH_MIN = -0.308843413017250406
_GELU_MIN = {"none": -0.169971207479903662, "tanh": -0.170040750571254051}
_SELU_MIN = -1.7580993408473766


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


#: Class of ``torch.nn`` -> what it is for, and its range; in the order of the table, most wanted first.
KNOWN: dict[str, tuple[str, Interval | RangeOf]] = {
    "Softplus": ("counts, densities, concentrations, dose: non-negative and smooth", _softplus),
    "ReLU": ("non-negative values with exact zeros; voxels below 0 have no gradient, see softplus", NON_NEGATIVE),
    "Sigmoid": ("probabilities, fractions, correlation 0..1", UNIT),
    "Tanh": ("values within -1..1, such as normalised intensities or correlation", Interval(-1.0, 1.0)),
    "Softmax": ("fractions that add up to 1 over the channels", _over_channels(UNIT, alone=1.0)),
    "LogSoftmax": (
        "logarithms of fractions that add up to 1 over the channels",
        _over_channels(NON_POSITIVE, alone=0.0),
    ),
    "LogSigmoid": ("logarithm of a probability", NON_POSITIVE),
    "Hardtanh": (
        "values clamped to min_val..max_val; no gradient outside, see bounded",
        lambda arguments, channels: Interval(arguments["min_val"], arguments["max_val"]),
    ),
    "Hardsigmoid": ("0..1, linear in between; no gradient outside", UNIT),
    "Softsign": ("-1..1 with long tails", Interval(-1.0, 1.0)),
    "ELU": ("values above -alpha; close to x above 0", _elu),
    "CELU": ("values above -alpha; close to x above 0", _celu),
    "SELU": ("values above -1.758", Interval(_SELU_MIN)),
    "LeakyReLU": ("any value, negative ones scaled down", _leaky_relu),
    "Softshrink": ("sparse values: shrunk by lambd towards 0", REAL_LINE),
    "Hardshrink": ("sparse values: 0 within lambd of 0, x outside", REAL_LINE),
    "Tanhshrink": ("any value, flat around 0", REAL_LINE),
    "Threshold": ("x above a threshold, a constant below", _threshold),
    "ReLU6": ("0..6, clamped; see bounded", Interval(0.0, 6.0)),
    "Softmin": ("fractions that add up to 1, largest where x is smallest", _over_channels(UNIT, alone=1.0)),
    "GELU": (
        "mostly non-negative; rarely meant as an output",
        lambda arguments, channels: Interval(_GELU_MIN[arguments["approximate"]]),
    ),
    "SiLU": ("mostly non-negative; rarely meant as an output", Interval(_SILU_MIN)),
    "Mish": ("mostly non-negative; rarely meant as an output", Interval(_MISH_MIN)),
    "Hardswish": ("mostly non-negative; rarely meant as an output", Interval(-0.375)),
}

#: Where every activation is tried, and compared in training and evaluation mode.
_TRIAL = torch.linspace(-4.0, 4.0, 16, device="cpu").reshape(1, 2, 2, 2, 2)


def activations() -> list[Activation | Refused]:
    order = [*KNOWN, *home.__all__]
    return [_activation(getattr(home, name)) for name in sorted(home.__all__, key=order.index)]


def _activation(cls: type[nn.Module]) -> Activation | Refused:
    if reason := _reason_against(cls):
        return Refused(_name(cls), reason)
    try:
        return _usable(cls)
    except ValueError as error:
        # a class that this project has not met, with an argument that no config can hold
        return Refused(_name(cls), str(error))


def _usable(cls: type[nn.Module]) -> Activation:
    # the range of a class that this project does not know may be anything
    summary, interval = KNOWN.get(cls.__name__, (first_sentence(cls), REAL_LINE))
    return Activation(
        _name(cls),
        _constructor(cls),
        range=interval,
        summary=summary,
        over_channels=_is_over_channels(cls),
        aliases=_ALIASES.get(cls.__name__, ()),
        example=_required(cls),
        hidden=_HIDDEN,
    )


def _is_over_channels(cls: type[nn.Module]) -> bool:
    return "dim" in parameters_of(cls)


def _constructor(cls: type[nn.Module]) -> Callable[..., nn.Module]:
    return partial(cls, dim=1) if _is_over_channels(cls) else cls


def _name(cls: type) -> str:
    """The class's name in lower case, with torch's own underscores: those of the function that it wraps."""
    functions = {fold(name): name for name in vars(functional) if name.islower() and name.strip("_") == name}
    return functions.get(fold(cls.__name__), fold(cls.__name__))


def _required(cls: type[nn.Module]) -> dict[str, Any]:
    """An example value for each argument without default."""
    return {p.name: p.kinds[0](0) for p in parameters_of(cls).values() if p.required and p.kinds}


def _reason_against(cls: type[nn.Module]) -> str | None:
    inputs = [p for p in inspect.signature(cls.forward).parameters.values() if p.default is p.empty]
    if len(inputs) > 2:
        return f"it takes {len(inputs) - 1} inputs, and a final activation has one, the last convolution"
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            module = _constructor(cls)(**_required(cls))
            trained, evaluated = (module.train(mode)(_TRIAL.clone()) for mode in (True, False))
    except Exception as error:
        return f"it does not take the output of a 3D U-Net ({type(error).__name__}: {error})"
    if module.state_dict():
        return "it has learnable weights, and a checkpoint with them would not load in plain pytorch-3dunet"
    if evaluated.shape != _TRIAL.shape:
        return f"it changes the shape of its input, from 2 channels to {evaluated.shape[1]}"
    if not torch.equal(trained, evaluated):
        return "it is random in training, so training and prediction would use different functions"
    return None
