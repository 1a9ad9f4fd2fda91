"""What is said of scores, in a terminal and on a page."""

from collections.abc import Iterator, Mapping
from typing import Any

#: Scores of a table, in its order.
NAMES = ("RMSE", "MAE", "R2", "Pearson", "PSNR", "SSIM", "bias", "slope")

#: Below this slope of prediction against truth extremes are squashed; above this step patches are seen.
_SLOPE, _STEP = 0.9, 1.25


def of_channel(value: Any, channel: int) -> Any:
    """Of a score that is a number for one channel, and a list for several."""
    return value[channel] if isinstance(value, list) else value


def number(value: float | None) -> str:
    """As in a table.

    >>> number(12.34567), number(None)
    ('12.35', '-')
    """
    return "-" if value is None else f"{value:.4g}"


def rows(plain: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The scores of each volume, and those of all voxels, which are the same where there is one volume."""
    found = [(str(volume["name"]), volume) for volume in plain["volumes"]]
    return [*(found if len(found) > 1 else []), ("all voxels", plain["pooled"])]


def remarks(plain: Mapping[str, Any]) -> Iterator[str]:
    """What a table does not say.

    Args:
        plain: see :attr:`~p3d_regression.evaluation.run.Evaluation.plain`.
    """
    slopes = plain["pooled"]["slope"]
    several = isinstance(slopes, list)
    for channel, slope in enumerate(slopes if several else [slopes]):
        if slope is not None and slope < _SLOPE:
            start = _start(channel, several)
            yield (
                f"{start}the slope of prediction against truth is {slope:.2f}: extremes are squashed. A longer "
                "training helps as long as the validation score still improves"
            )
    for volume in plain["volumes"]:
        if volume["seam"] is not None and volume["seam"] > _STEP:
            times = f"{volume['seam']:.2f} times as much as elsewhere"
            yield f"{volume['name']}: at borders of patches the error steps {times}"
    held = plain.get("calibration")
    for channel, told in enumerate(held if isinstance(held, list) else [held]):
        if told is not None:
            yield f"{_start(channel, several)}share of the truth inside the predicted interval, {_shares(told)}"
            if "calibrated" in told:
                yield f"{_start(channel, several)}the same after calibration, {_shares(told['calibrated'])}"
    for name, scores in plain["over_volumes"].items():
        if isinstance(scores["interval"], list) and not isinstance(scores["mean"], list):
            low, high = scores["interval"]
            yield f"{name}: mean over volumes {scores['mean']:.4g}, 95 % interval {low:.4g} to {high:.4g}"


def _start(channel: int, several: bool) -> str:
    return f"channel {channel}: " if several else ""


def _shares(told: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{float(level):.0%}: {share:.1%}" for level, share in told["coverage"].items())
    return f"{shares}; NLL {told['NLL']:.4g}"
