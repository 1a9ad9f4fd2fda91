"""Probable causes of what a training shows: a loss that is NaN or infinite, an output that is constant."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from p3d_regression.model.last_layer import LastLayer

if TYPE_CHECKING:
    from torch import Tensor


def statistics(values: "Tensor") -> str:
    """A tensor in words: range, mean, and how many values are NaN or infinite."""
    values = values.detach()
    finite = values[values.isfinite()].double()
    nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
    parts = [f"{finite.min():.6g} to {finite.max():.6g}, mean {finite.mean():.6g}"] if finite.numel() else []
    parts += [f"{count} of {values.numel()} {what}" for count, what in ((nan, "NaN"), (infinite, "infinite")) if count]
    return "; ".join(parts)


def cause_of_no_number(raw: "Tensor", labels: "Tensor", output: "Tensor", *, masks_nan: bool) -> str:
    """Why the loss of a batch is NaN or infinite, probably, and what to do."""
    if not raw.isfinite().all():
        return (
            "The raw volume holds NaN or infinite values, or a transform produces them (Standardize on a constant "
            "patch). Correct the file or the transform."
        )
    if labels.isinf().any():
        return "The labels hold infinite values, or a transform produces them. Correct the file or the transform."
    if labels.isnan().any() and not masks_nan:
        return (
            "The labels hold NaN. If these voxels have no label, exclude them from loss and metric:\n"
            "  loss:\n    ignore_index: .nan\nOtherwise correct the file or the transform."
        )
    if not output.isfinite().all():
        return (
            "Raw and labels are finite, the model's output is not: the weights have grown too large. Lower "
            "optimizer.learning_rate, or look for outliers in the labels. If trainer.precision is not 32, try 32 first."
        )
    finite = labels[labels.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    if float(output.abs().max()) > 1000 * max(largest, 1.0):
        return (
            "The model's output is far larger than all labels: the weights have grown too large. Lower "
            "optimizer.learning_rate."
        )
    return (
        "Raw, labels and output are finite, their loss is not. Labels or output are probably outside the range that "
        "this loss is for: `p3d-regression check` compares them."
    )


@dataclass
class OutputRange:
    """The smallest and largest output of each channel over a validation, found without waiting for a GPU."""

    _low: "Tensor | None" = None
    _high: "Tensor | None" = None

    def add(self, output: "Tensor") -> None:
        """Take in an output of shape (N, C, D, H, W)."""
        import torch

        channels = output.detach().transpose(0, 1).flatten(1)
        low, high = torch.aminmax(channels, dim=1)
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)

    def constants(self) -> dict[int, float]:
        """Channels in which every value was the same -> that value."""
        if self._low is None or self._high is None:
            return {}
        pairs = zip(self._low.tolist(), self._high.tolist(), strict=True)
        return {channel: low for channel, (low, high) in enumerate(pairs) if low == high}


def cause_of_constant(value: float, layer: LastLayer) -> str:
    """Why an output channel is the same everywhere, probably, and what to do.

    Args:
        value: which.
        layer: the last layer in this channel.
    """
    (interval,) = layer.ranges
    if interval.low == interval.high:
        return f"A {layer.name} over one channel has no other value. Write: model: {{final_activation: none}}"
    if value in (interval.low, interval.high):
        return (
            f"This is the end of the range {interval} of {layer.name}, where its gradient is 0. Lower "
            "optimizer.learning_rate, or write an activation whose range goes beyond the labels (none, softplus)."
        )
    return (
        "The output does not depend on the input: optimizer.learning_rate may be too high or far too low, the raw "
        "volumes constant after their transforms, or the labels constant."
    )
