"""The losses of ``torch.nn``: whatever the installed torch has that compares two volumes voxel by voxel."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules import loss as home

from p3d_regression.components.component import Refused
from p3d_regression.interval import NON_NEGATIVE, REAL_LINE, UNIT, Interval
from p3d_regression.losses import modules
from p3d_regression.losses.loss import IntervalOf, Loss

_HIDDEN = {
    "reduction": "it is always the mean over the voxels that count",
    "size_average": "it is torch's old spelling of reduction",
    "reduce": "it is torch's old spelling of reduction",
    "weight": "it would be one number per patch; a number beside the name weighs a whole term of a sum",
}

#: What each is for; the order is that of the table, what is wanted most often first.
_SUMMARIES = {
    "MSELoss": "the mean of the labels at each voxel; few large errors count most",
    "L1Loss": "the median of the labels; outliers count little",
    "SmoothL1Loss": "squared below beta, absolute above: MSELoss near the label, L1Loss far from it",
    "HuberLoss": "SmoothL1Loss times its delta: has the gradient of the squared error near the label",
    "GaussianNLLLoss": "mean and variance of each voxel: an uncertainty beside the prediction, two output channels",
    "PoissonNLLLoss": "counts; the output is the logarithm of the rate, or with log_input false the rate itself",
    "BCELoss": "masks and fractions 0..1, for an output of sigmoid",
    "BCEWithLogitsLoss": "masks and fractions 0..1, for an output of none: it applies the sigmoid itself",
    "KLDivLoss": "fractions over the channels, for an output of log_softmax",
}

_ALIASES = {
    "MSELoss": ("MSE", "L2Loss"),
    "L1Loss": ("MAE",),
    "HuberLoss": ("Huber",),
    "SmoothL1Loss": ("SmoothL1",),
    "GaussianNLLLoss": ("GaussianNLL",),
    "PoissonNLLLoss": ("PoissonNLL",),
}

#: Which outputs each can be given.
_OUTPUTS: dict[str, Interval | IntervalOf] = {
    "BCELoss": UNIT,
    "KLDivLoss": Interval(high=0.0),
    "PoissonNLLLoss": lambda arguments: REAL_LINE if arguments.get("log_input", True) else NON_NEGATIVE,
}

#: Which labels make sense for each.
_LABELS: dict[str, Interval | IntervalOf] = {
    "BCELoss": UNIT,
    "BCEWithLogitsLoss": UNIT,
    "HingeEmbeddingLoss": Interval(-1.0, 1.0),
    "SoftMarginLoss": Interval(-1.0, 1.0),
    "KLDivLoss": lambda arguments: Interval(high=0.0) if arguments.get("log_target", False) else UNIT,
    "PoissonNLLLoss": NON_NEGATIVE,
}

#: Written anew because torch's own looks at each variance on the host, once per step.
_OURS: dict[str, type[nn.Module]] = {"GaussianNLLLoss": modules.GaussianNLL, "BCEWithLogitsLoss": modules.BCEWithLogits}

_TRIAL = torch.linspace(0.1, 0.9, 16, device="cpu").reshape(1, 2, 2, 2, 2)


def losses() -> list[Loss | Refused]:
    order = [*_SUMMARIES, *home.__all__]
    return [_loss(getattr(home, name)) for name in sorted(home.__all__, key=order.index)]


def _loss(cls: type[nn.Module]) -> Loss | Refused:
    name = cls.__name__
    if name not in _OURS and (reason := _reason_against(cls)):
        return Refused(name, reason)
    return Loss(
        name,
        _OURS.get(name) or _unreduced(cls),
        summary=_SUMMARIES.get(name, f"torch.nn.{name}"),
        variance=name == "GaussianNLLLoss",
        outputs=_OUTPUTS.get(name, REAL_LINE),
        labels=_LABELS.get(name, REAL_LINE),
        aliases=_ALIASES.get(name, ()),
        hidden=_HIDDEN,
    )


def _unreduced(cls: type[nn.Module]) -> Callable[..., nn.Module]:
    """The class, built with ``reduction="none"``; its signature is that of the class."""

    def build(**arguments: Any) -> nn.Module:
        return cls(**arguments, reduction="none")

    parameters: Mapping[str, inspect.Parameter] = inspect.signature(cls).parameters
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=p.KEYWORD_ONLY) for p in parameters.values()]
    )
    return build


def _reason_against(cls: type[nn.Module]) -> str | None:
    inputs = [p for p in inspect.signature(cls.forward).parameters.values() if p.default is p.empty]
    if len(inputs) != 3:
        return f"it takes {len(inputs) - 1} inputs, not an output and a label"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class that nobody has asked for
            losses = _unreduced(cls)()(_TRIAL, _TRIAL)
    except Exception as error:
        return f"it does not compare the output of a 3D U-Net with labels of the same shape ({str(error)[:100]})"
    return None if losses.shape == _TRIAL.shape else "it does not have a loss for each voxel"
