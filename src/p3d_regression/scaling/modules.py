"""The layer that scales a model's output."""

from collections.abc import Callable, Sequence
from typing import NoReturn, Self

import torch
from torch import Tensor, nn


class Rescale(nn.Module):
    """``mean + std * x`` for each channel.

    In float32 also where the layers before it are computed in half precision: 5000 photons are no float16.

    Args:
        mean, std: one per channel, in the units of the labels.
    """

    offset: Tensor
    factor: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = list(mean), list(std)
        self._place("cpu")

    def _place(self, device: torch.device | str) -> None:
        # with the model from device to device, but not into its state_dict
        for name, values in (("offset", self.mean), ("factor", self.std)):
            tensor = torch.tensor(values, dtype=torch.float32, device=device)
            self.register_buffer(name, tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # model.half() would round the numbers
        self._place(self.offset.device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, C, ...) to (N, C, ...)."""
        shape = (-1, *(1,) * (x.dim() - 2))
        return torch.addcmul(self.offset.view(shape), x, self.factor.view(shape))

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


class Unmeasured(nn.Module):
    """Stands where the numbers of ``target_scaling: standardize`` will be."""

    def forward(self, x: Tensor) -> Tensor:
        """Raise an error.

        Raises:
            RuntimeError: always.
        """
        _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError(
        "model.target_scaling: standardize has no numbers yet. A training measures them when it starts, and a "
        "checkpoint holds them: load one first, or write {mean: ..., std: ...}."
    )
