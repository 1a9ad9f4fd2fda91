"""The activations of ``torch.nn``: whatever the installed torch has, and reasons for what cannot be used."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import activation as home

from p3d_regression.activations.activation import Activation
from p3d_regression.activations.ranges import OF_TORCH_NN, constant
from p3d_regression.components.component import Refused
from p3d_regression.components.parameters import parameters_of
from p3d_regression.interval import REAL_LINE
from p3d_regression.text import fold

#: Arguments of the constructors that a config may not give.
_HIDDEN = {
    "dim": "it always acts over the channels",
    "inplace": "it saves memory and changes no value",
    "min_value": "it is torch's old spelling of min_val",
    "max_value": "it is torch's old spelling of max_val",
}

_ALIASES = {"SiLU": ("swish",)}

#: What each is for; the order is that of the table, what is wanted most often first.
_SUMMARIES = {
    "Softplus": "counts, densities, concentrations, dose: non-negative and smooth",
    "ReLU": "non-negative values with exact zeros; voxels below 0 have no gradient, see softplus",
    "Sigmoid": "probabilities, fractions, correlation 0..1",
    "Tanh": "values within -1..1, such as normalised intensities or correlation",
    "Softmax": "fractions that add up to 1 over the channels",
    "LogSoftmax": "logarithms of fractions that add up to 1 over the channels",
    "LogSigmoid": "logarithm of a probability",
    "Hardtanh": "values clamped to min_val..max_val; no gradient outside, see bounded",
    "Hardsigmoid": "0..1, linear in between; no gradient outside",
    "Softsign": "-1..1 with long tails",
    "ELU": "values above -alpha; close to x above 0",
    "CELU": "values above -alpha; close to x above 0",
    "SELU": "values above -1.758",
    "LeakyReLU": "any value, negative ones scaled down",
    "Softshrink": "sparse values: shrunk by lambd towards 0",
    "Hardshrink": "sparse values: 0 within lambd of 0, x outside",
    "Tanhshrink": "any value, flat around 0",
    "Threshold": "x above a threshold, a constant below",
    "ReLU6": "0..6, clamped; see bounded",
    "Softmin": "fractions that add up to 1, largest where x is smallest",
    "GELU": "mostly non-negative; rarely meant as an output",
    "SiLU": "mostly non-negative; rarely meant as an output",
    "Mish": "mostly non-negative; rarely meant as an output",
    "Hardswish": "mostly non-negative; rarely meant as an output",
}

#: Where every activation is tried, and compared in training and evaluation mode.
_TRIAL = torch.linspace(-4.0, 4.0, 16, device="cpu").reshape(1, 2, 2, 2, 2)


def activations() -> list[Activation | Refused]:
    order = [*_SUMMARIES, *home.__all__]
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
    return Activation(
        _name(cls),
        _constructor(cls),
        # a class that this project has not met may produce anything, as far as it knows
        range=OF_TORCH_NN.get(cls.__name__, constant(REAL_LINE)),
        summary=_SUMMARIES.get(cls.__name__, f"torch.nn.{cls.__name__}"),
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
        return "it is random in training, so that training and prediction would see different functions"
    return None
