"""What is noticed while a training runs: a loss that is no number, an output that is the same everywhere."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from p3d_regression.interval import Interval

if TYPE_CHECKING:
    from torch import Tensor


def statistics(values: "Tensor") -> str:
    """A tensor in words: range, mean, and how many values are no numbers."""
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
            "The raw volume holds NaN or infinite values, or a transform makes them (Standardize of a constant patch). "
            "Mend the file or the transform."
        )
    if labels.isinf().any():
        return "The labels hold infinite values, or a transform makes them. Mend the file or the transform."
    if labels.isnan().any() and not masks_nan:
        return (
            "The labels hold NaN. If these voxels have no label, write:\n  loss:\n    ignore_index: .nan\n"
            "and they do not count. Else mend the file or the transform."
        )
    if not output.isfinite().all():
        return (
            "Raw and labels are numbers, the model's output is not: the weights have grown too large. Lower "
            "optimizer.learning_rate, or look for outliers in the labels."
        )
    finite = labels[labels.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    if float(output.abs().max()) > 1000 * max(largest, 1.0):
        return (
            "The model's output is far from all labels, and still grows: the weights have grown too large. Lower "
            "optimizer.learning_rate."
        )
    return (
        "Raw, labels and output are numbers: the loss of them is none. Look whether labels and output are in the range "
        "that this loss is for (`p3d-regression check` does)."
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


def cause_of_constant(value: float, interval: Interval, name: str) -> str:
    """Why the output is the same everywhere, probably, and what to do.

    Args:
        value: which.
        interval: what the model's last layer can say.
        name: of the last layer.
    """
    if interval.low == interval.high:
        return f"{name} over one channel can say nothing else. Write: model: {{final_activation: none}}"
    if value in (interval.low, interval.high):
        return (
            f"it is the end of the range {interval} of {name}, where that is flat and no gradient comes back. Lower "
            "optimizer.learning_rate, or write an activation whose range goes beyond the labels (none, softplus)"
        )
    return (
        "the network says the same whatever it sees: optimizer.learning_rate may be too high or far too low, the raw "
        "volumes constant after their transforms, or the labels constant"
    )
