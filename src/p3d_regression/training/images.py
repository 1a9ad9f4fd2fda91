"""What TensorBoard is shown of a regression: labels, predictions and errors of a batch, channel by channel."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pictures(
    labels: Array, output: Array, predicted: Sequence[int], counts: Array | None = None
) -> Iterator[tuple[str, Array]]:
    """Draw the middle slice of each patch and channel.

    A label and its prediction are drawn on one scale, from black, the smallest label that counts in the slice, to
    white, the largest. An error, prediction minus label, is grey where it is zero, white where it is as large as that
    scale is wide. Voxels that do not count are black in the labels, and without error.

    Args:
        labels: shape (N, C, D, H, W), in their own units.
        output: of the model, shape (N, C', D, H, W), the same units.
        predicted: for each channel of the labels the channel of the output.
        counts: which voxels count, of the labels' shape; None for all.

    Yields:
        Tags as pytorch-3dunet writes them, ``predictions/batch_0/channel_1/slice_16``, without channel where there is
        one; and pictures of shape (1, H, W), from 0 to 1.
    """
    middle = labels.shape[2] // 2
    for patch in range(labels.shape[0]):
        for channel, source in enumerate(predicted):
            label, prediction = labels[patch, channel, middle], output[patch, source, middle]
            counting = np.isfinite(label)
            if counts is not None:
                counting &= counts[patch, channel, middle]
            low, width = _scale(label[counting])
            shown = {
                "targets": np.where(counting, (label - low) / width, 0.0),
                "predictions": (prediction - low) / width,
                "errors": np.where(counting, 0.5 + (prediction - label) / width / 2, 0.5),
            }
            for name, picture in shown.items():
                yield _tag(name, patch, channel, middle, labels.shape[1]), _unit(picture)
        others = [channel for channel in range(output.shape[1]) if channel not in predicted]
        for channel in others:
            values = output[patch, channel, middle]
            low, width = _scale(values[np.isfinite(values)])
            yield _tag("others", patch, channel, middle, output.shape[1]), _unit((values - low) / width)


def _scale(values: Array) -> tuple[float, float]:
    """The smallest of some values, and how far the largest is from it."""
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high - low) if high > low else (low - 0.5, 1.0)


def _tag(name: str, patch: int, channel: int, middle: int, channels: int) -> str:
    one = f"channel_{channel}/" if channels > 1 else ""
    return f"{name}/batch_{patch}/{one}slice_{middle}"


def _unit(picture: Array) -> Array:
    clipped: Array = np.clip(np.nan_to_num(picture, posinf=1.0, neginf=0.0), 0.0, 1.0)
    return clipped[None].astype(np.float32)
