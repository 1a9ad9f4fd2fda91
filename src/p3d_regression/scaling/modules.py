"""The layer that scales a model's output."""

from collections.abc import Callable, Sequence
from typing import NoReturn, Self

import torch
from torch import Tensor, nn

from p3d_regression.scaling.terms import Follow, Term


class Rescale(nn.Module):
    """``mean + std * x`` for each channel.

    In float32 also where the layers before it are computed in half precision: 5000 photons are no float16.

    Args:
        mean, std: one per channel, in the units of the labels.
    """

    needs_raw = False

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


class FollowRaw(nn.Module):
    """``intercept + slope * level + scale * std(raw patch) * x`` for each channel that follows the raw volume.

    The level is the mean of the raw patch, or its value in each voxel. Other channels are ``mean + std * x``. In
    float32, as in :class:`Rescale`.

    Args:
        terms: one per output channel.
    """

    needs_raw = True

    offset: Tensor
    slope: Tensor
    factor: Tensor
    follows: Tensor
    voxelwise: Tensor
    channel: Tensor

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self._place("cpu")

    def _place(self, device: torch.device | str) -> None:
        rows = [_row(term) for term in self.terms]
        names = ("offset", "slope", "factor", "follows", "voxelwise", "channel")
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            dtype = {"voxelwise": torch.bool, "channel": torch.int64}.get(name, torch.float32)
            self.register_buffer(name, torch.tensor(values, dtype=dtype, device=device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._place(self.offset.device)
        return self

    def forward(self, x: Tensor, raw: Tensor) -> Tensor:
        """Output and raw patch of shape (N, C, ...) to (N, C, ...)."""
        shape = (-1, *(1,) * (x.dim() - 2))
        seen, spatial = raw.float()[:, self.channel], tuple(range(2, raw.dim()))
        mean = seen.mean(spatial, keepdim=True)
        std = (seen - mean).square().mean(spatial, keepdim=True).sqrt()
        level = torch.where(self.voxelwise.view(shape), seen, mean) if self.is_voxelwise else mean
        # 1 where a channel follows nothing
        spread = torch.where(self.follows.view(shape) > 0, std, torch.ones_like(std))
        return self.offset.view(shape) + self.slope.view(shape) * level + self.factor.view(shape) * spread * x

    @property
    def is_voxelwise(self) -> bool:
        """Whether a channel follows the raw volume voxel by voxel."""
        return any(isinstance(term, Follow) and term.kind == "residual" for term in self.terms)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.terms))


def _row(term: Term) -> tuple[float, float, float, float, bool, int]:
    """Offset, slope, factor, whether it follows the raw volume and does so by voxels, and the channel of that."""
    if isinstance(term, Follow):
        assert term.line is not None, "nothing was measured"
        line = term.line
        return line.intercept, line.slope, line.scale, 1.0, term.kind == "residual", term.in_channel
    return term.mean, 0.0, term.std, 0.0, False, 0


class Unmeasured(nn.Module):
    """Stands where the measured numbers of ``target_scaling`` will be."""

    needs_raw = False

    def forward(self, x: Tensor) -> Tensor:
        """Raise an error.

        Raises:
            RuntimeError: always.
        """
        _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError(
        "model.target_scaling has no numbers yet. A training measures them when it starts, and a checkpoint holds "
        "them: load one first, or write {mean: ..., std: ...}."
    )
