"""The losses of ``torch.nn``: whatever the installed torch has that compares two volumes voxel by voxel."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import loss as home

from p3d_regression.components.component import Refused
from p3d_regression.interval import NON_NEGATIVE, NON_POSITIVE, REAL_LINE, UNIT, Interval
from p3d_regression.labels.floor import ABSOLUTE, SQUARED, VoxelLoss
from p3d_regression.losses import builtin
from p3d_regression.losses.loss import Loss
from p3d_regression.text import first_sentence

_HIDDEN = {
    "reduction": "it is always the mean over the voxels that count",
    "size_average": "it is torch's old spelling of reduction",
    "reduce": "it is torch's old spelling of reduction",
    "weight": "torch's is one number per patch; here weight is the factor of a loss in a sum",
}

_TRIAL = torch.linspace(0.1, 0.9, 16, device="cpu").reshape(1, 2, 2, 2, 2)


def losses() -> list[Loss | Refused]:
    """In the order of the table: what is wanted most often first."""
    known = declared()
    names = {loss.name for loss in known}
    return [*known, *(_loss(getattr(home, name)) for name in home.__all__ if name not in names)]


def declared() -> list[Loss]:
    """Those of which more is known than their signatures tell."""
    return [
        _of(
            nn.MSELoss,
            "the mean of the labels at each voxel; few large errors count most",
            aliases=("MSE", "L2Loss"),
            voxel_loss=lambda arguments: SQUARED,
        ),
        _of(
            nn.L1Loss,
            "the median of the labels; outliers count little",
            aliases=("MAE",),
            voxel_loss=lambda arguments: ABSOLUTE,
        ),
        _of(
            nn.SmoothL1Loss,
            "squared below beta, absolute above: MSELoss near the label, L1Loss far from it",
            aliases=("SmoothL1",),
            units={"beta": "difference"},
            voxel_loss=lambda arguments: VoxelLoss(builtin.smooth_l1(arguments["beta"])),
        ),
        _of(
            nn.HuberLoss,
            "SmoothL1Loss times its delta: has the gradient of the squared error near the label",
            aliases=("Huber",),
            units={"delta": "difference"},
            voxel_loss=lambda arguments: VoxelLoss(_huber(arguments["delta"])),
        ),
        # written anew because torch's own looks at each variance on the host, once per step
        Loss(
            "GaussianNLLLoss",
            builtin.GaussianNLL,
            summary="mean and variance of each voxel: an uncertainty with the prediction, two output channels",
            variance=True,
            aliases=("GaussianNLL",),
            hidden=_HIDDEN,
            units={"eps": "variance"},
        ),
        _of(
            nn.PoissonNLLLoss,
            "counts; the output is the logarithm of the rate, or with log_input false the rate itself",
            outputs=lambda arguments: REAL_LINE if arguments.get("log_input", True) else NON_NEGATIVE,
            labels=NON_NEGATIVE,
            aliases=("PoissonNLL",),
            applies=lambda arguments: "exp" if arguments.get("log_input", True) else None,
            instead={"log_input": False},
        ),
        _of(
            nn.BCELoss,
            "masks and fractions 0..1, for an output of sigmoid",
            outputs=UNIT,
            labels=UNIT,
            compares="fractions",
        ),
        # written anew because torch's own takes a tensor for pos_weight
        Loss(
            "BCEWithLogitsLoss",
            builtin.BCEWithLogits,
            summary="masks and fractions 0..1, for an output of none: it applies the sigmoid itself",
            labels=UNIT,
            hidden=_HIDDEN,
            compares="fractions",
            applies="sigmoid",
            instead={"name": "BCELoss"},
        ),
        _of(
            nn.KLDivLoss,
            "fractions over the channels, for an output of log_softmax",
            outputs=NON_POSITIVE,
            labels=lambda arguments: NON_POSITIVE if arguments.get("log_target", False) else UNIT,
            compares="fractions",
            applies=lambda arguments: None if arguments.get("log_target", False) else "exp",
            instead={"final_activation": "softmax", "name": "MSELoss"},
        ),
        *(
            _of(cls, first_sentence(cls), labels=Interval(-1.0, 1.0), compares="fractions")
            for cls in (nn.HingeEmbeddingLoss, nn.SoftMarginLoss)
        ),
    ]


def _of(cls: type[nn.Module], summary: str, **facts: Any) -> Loss:
    return Loss(cls.__name__, _unreduced(cls), summary=summary, hidden=_HIDDEN, **facts)


def _huber(delta: float) -> Callable[[Any], Any]:
    return lambda distance: np.where(distance < delta, 0.5 * distance**2, delta * (distance - 0.5 * delta))


def _loss(cls: type[nn.Module]) -> Loss | Refused:
    """A loss about which nothing is declared above."""
    reason = _reason_against(cls)
    return Refused(cls.__name__, reason) if reason else _of(cls, first_sentence(cls))


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
            warnings.simplefilter("ignore")  # no config names the class
            losses = _unreduced(cls)()(_TRIAL, _TRIAL)
    except Exception as error:
        return f"it does not compare the output of a 3D U-Net with labels of the same shape ({str(error)[:100]})"
    return None if losses.shape == _TRIAL.shape else "it does not have a loss for each voxel"
