"""The project's own losses, and losses of each voxel that torch does not have in this form."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from p3d_regression.labels.floor import VoxelLoss
from p3d_regression.losses.loss import Loss


def losses() -> list[Loss]:
    return [
        Loss(
            "WeightedSmoothL1Loss",
            WeightedSmoothL1,
            summary="pytorch-3dunet's: SmoothL1Loss with a factor where labels are below or above a threshold",
            example={"threshold": 0.0, "initial_weight": 0.1},
            hidden={"beta": "pytorch-3dunet's has 1.0"},
            units={"threshold": "label", "beta": "difference"},
            voxel_loss=_weighted_smooth_l1,
        )
    ]


def _weighted_smooth_l1(arguments: Mapping[str, Any]) -> VoxelLoss:
    threshold, weight, below = (arguments[name] for name in ("threshold", "initial_weight", "apply_below_threshold"))
    return VoxelLoss(
        smooth_l1(arguments.get("beta", 1.0)), lambda labels: np.where((labels < threshold) == below, weight, 1.0)
    )


class GaussianNLL(nn.Module):
    """Negative log-likelihood of labels under a normal distribution, as ``torch.nn.GaussianNLLLoss``.

    That one asks whether any variance is negative, for which a GPU has to be waited for in each step. Here the final
    activation is asked instead, once.

    Args:
        full: whether the constant is part of it.
        eps: the smallest variance, for numerical stability; smaller ones count as this.
    """

    def __init__(self, full: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.full = full
        self.eps = eps

    def forward(self, mean: Tensor, label: Tensor, variance: Tensor) -> Tensor:
        variance = variance.clone()
        with torch.no_grad():
            # as torch does it: the gradient of a variance that is too small goes on
            variance.clamp_(min=self.eps)
        losses = 0.5 * (variance.log() + (mean - label) ** 2 / variance)
        return losses + 0.5 * math.log(2 * math.pi) if self.full else losses

    def extra_repr(self) -> str:
        return f"full={self.full}, eps={self.eps}"


class BCEWithLogits(nn.Module):
    """Binary cross-entropy of the sigmoid of an output, as ``torch.nn.BCEWithLogitsLoss``.

    Args:
        pos_weight: what the part of the label that is 1 is multiplied with.
    """

    def __init__(self, pos_weight: float = 1.0) -> None:
        super().__init__()
        self.pos_weight = pos_weight

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        # a new number on the device, not a copy to it
        weight = (
            None
            if self.pos_weight == 1.0
            else torch.full((), self.pos_weight, dtype=output.dtype, device=output.device)
        )
        return functional.binary_cross_entropy_with_logits(output, label, reduction="none", pos_weight=weight)

    def extra_repr(self) -> str:
        return f"pos_weight={self.pos_weight}"


class WeightedSmoothL1(nn.Module):
    """pytorch-3dunet's ``WeightedSmoothL1Loss`` before its mean: a factor where labels are below or above a threshold.

    Args:
        threshold: of the labels.
        initial_weight: the factor.
        apply_below_threshold: whether it is for labels below the threshold; else for the others.
        beta: the distance below which the loss is squared.
    """

    def __init__(
        self, threshold: float, initial_weight: float, apply_below_threshold: bool = True, beta: float = 1.0
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.weight = initial_weight
        self.apply_below_threshold = apply_below_threshold
        self.beta = beta

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        losses = functional.smooth_l1_loss(output, label, reduction="none", beta=self.beta)
        chosen = label < self.threshold if self.apply_below_threshold else label >= self.threshold
        return torch.where(chosen, losses * self.weight, losses)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, weight={self.weight}, apply_below_threshold={self.apply_below_threshold}"


def smooth_l1(beta: float) -> Callable[[Any], Any]:
    """``functional.smooth_l1_loss`` of a distance, for numpy arrays."""
    if beta == 0:
        return np.abs
    return lambda distance: np.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
