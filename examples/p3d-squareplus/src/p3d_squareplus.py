"""``final_activation: squareplus``: non-negative like softplus, with a square root instead of an exponential."""

import torch

from p3d_regression import Activation, Interval, hookimpl


class Squareplus(torch.nn.Module):
    def __init__(self, b: float = 4.0) -> None:
        super().__init__()
        self.b = b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + torch.sqrt(x * x + self.b)) / 2


@hookimpl
def p3d_activations() -> list[Activation]:
    return [Activation("squareplus", Squareplus, range=Interval(0.0), summary="non-negative values with long tails")]
