"""Losses as a training uses them: one number of an output and its labels, over the voxels that count.

Nothing here waits for a GPU: masked voxels are multiplied by 0, not cut out.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, advise, write
from p3d_regression.losses import share as shares
from p3d_regression.losses.mask import Mask

#: A number that every loss can be computed of, where a voxel does not count: no NaN must enter its gradient.
_HARMLESS = 0.5


class Criterion(nn.Module):
    """A loss of an output, shape (N, C, D, H, W), and its labels.

    Attributes:
        variance: whether the second half of the output's channels are variances of the first.
    """

    variance = False

    def forward(self, output: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        raise NotImplementedError


class VoxelMean(Criterion):
    """The mean of the loss of each voxel over those that count.

    Args:
        loss: from output and label (and variance) to the loss of each voxel, all of one shape.
        mask: which voxels count; None for all.
        variance: as in :class:`Criterion`.
    """

    def __init__(self, loss: nn.Module, mask: Mask | None = None, *, variance: bool = False) -> None:
        super().__init__()
        self.loss = loss
        self.mask = mask
        self.variance = variance

    def forward(self, output: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the mean, weighted if the dataset delivers a weight for each voxel; 0 if no voxel counts."""
        outputs = output.chunk(2, dim=1) if self.variance else (output,)
        check_shapes(outputs[0], label, variance=self.variance)
        counts = None if self.mask is None else self.mask(label)
        label = label.to(output.dtype)
        if counts is not None:
            outputs = tuple(torch.where(counts, part, _HARMLESS) for part in outputs)
            label = torch.where(counts, label, _HARMLESS)
        losses: Tensor = self.loss(outputs[0], label, *outputs[1:])
        share = shares.current()
        if counts is None and weight is None:
            return losses.mean() if share is None else _part_of_mean(losses, share)
        weights = torch.ones_like(losses) if weight is None else _for_each(losses, weight)
        if counts is not None:
            weights = weights * counts
            losses = torch.where(counts, losses, 0.0)
        total = weights.sum() if share is None else share.divisor(weights.sum())
        return (losses * weights).sum() / torch.where(total > 0, total, 1.0)

    def extra_repr(self) -> str:
        return "" if self.mask is None else f"without voxels labelled {self.mask}"


class Whole(Criterion):
    """A loss that takes its own mean, such as Dice."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        check_shapes(output, label)
        share = shares.current()
        if share is not None and not share.own:
            return output.sum() * 0.0
        loss: Tensor = self.loss(output, label)
        return loss if share is None else loss * share.factor


class Channelwise(Criterion):
    """A sum over the channels of the labels, each with its own loss.

    Args:
        parts: one per channel of the labels; one with a variance has two output channels, the others one.
        factors: what each is multiplied with.
    """

    def __init__(self, parts: Iterable[Criterion], factors: Sequence[float]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.factors = tuple(factors)

    @property
    def widths(self) -> list[int]:
        """How many output channels each part has."""
        return [2 if part.variance else 1 for part in self.parts]

    def forward(self, output: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        if output.shape[1] != sum(self.widths) or label.dim() != output.dim() or label.shape[1] != len(self.parts):
            raise ConfigError(
                "loss.channels",
                f"there are {len(self.parts)} entries for labels with as many channels and an output with "
                f"{sum(self.widths)}; the output has the shape {_written(output)}, the labels {_written(label)}.",
                advise("write one entry per channel of the labels, and set model.out_channels"),
            )
        losses = []
        for index, (part, own) in enumerate(zip(self.parts, torch.split(output, self.widths, dim=1), strict=True)):
            one = slice(index, index + 1)
            weights = weight if weight is None else _for_each(label, weight)[:, one]
            losses.append(self.factors[index] * part(own, label[:, one], weights))
        return torch.stack(losses).sum()

    def extra_repr(self) -> str:
        return f"factors={self.factors}"


class WeightedSum(Criterion):
    """A sum of several losses of the same output.

    Args:
        parts: with or without variance, but all alike.
        factors: what each is multiplied with.
    """

    def __init__(self, parts: Sequence[Criterion], factors: Sequence[float]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.factors = tuple(factors)
        self.variance = parts[0].variance

    def forward(self, output: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        pairs = zip(self.factors, self.parts, strict=True)
        return torch.stack([factor * part(output, label, weight) for factor, part in pairs]).sum()

    def extra_repr(self) -> str:
        return f"factors={self.factors}"


def _part_of_mean(losses: Tensor, share: shares.Share) -> Tensor:
    """Where every voxel counts alike, the patches of each process say enough."""
    return losses.mean() * share.factor if share.own else losses.sum()


def _for_each(losses: Tensor, weight: Tensor) -> Tensor:
    """A weight for each voxel of each channel; it may have been given once for all channels."""
    with_channels = weight.unsqueeze(1) if weight.dim() == losses.dim() - 1 else weight
    return with_channels.to(losses.dtype).expand_as(losses)


def check_shapes(output: Tensor, label: Tensor, *, variance: bool = False) -> None:
    """Refuse labels that torch would broadcast against the output: the loss would be of pairs that are none.

    Raises:
        ConfigError: the shapes differ; the message says what to do.
    """
    if output.shape == label.shape:
        return
    what = "means in the first half of the output's channels have" if variance else "output has"
    key, fix = _fix(output, label, variance=variance)
    raise ConfigError(
        key,
        f"the {what} the shape {_written(output)}, the labels {_written(label)}; each voxel must be compared with its "
        "own label.",
        fix,
    )


def _fix(output: Tensor, label: Tensor, *, variance: bool) -> tuple[str, Fix]:
    """The key in a config and what to do about it."""
    if label.dim() == output.dim() - 1:
        what = "the labels have no channel axis: write {name: ToTensor, expand_dims: true} as the last label transform"
        return "loaders", advise(f"{what} of train and val")
    if label.dim() == output.dim() and label.shape[2:] == output.shape[2:]:
        what = f"or store labels with {output.shape[1]} channel(s), as (C, D, H, W)"
        return "model.out_channels", write("model.out_channels", label.shape[1] * (1 + variance)) + advise(what)
    return "loaders", advise("make raw and label patches equal in size: see their transforms, and the volumes' shapes")


def _written(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
