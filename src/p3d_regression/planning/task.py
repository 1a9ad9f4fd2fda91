"""What kind of regression labels are for, as their values tell."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from p3d_regression.errors import VolumesError
from p3d_regression.planning.fingerprint import Fingerprint, Values

#: Kinds of labels that can be asked for.
Kind = Literal["denoise", "counts", "distance", "mask+distance", "mean+variance", "staining", "vectors"]

KINDS: tuple[str, ...] = get_args(Kind)

#: Of the variance of labels, what a line through the raw values explains where the output can follow these at all, and
#: where they are the same thing.
LEAST_LINE, SAME = 0.05, 0.3

#: How far from 1 a slope is, and means from each other in standard deviations, that count as equal.
_NEARLY = 0.1

#: Of the labels, those that are 0 where they are counts.
_SOME = 0.001


@dataclass(frozen=True)
class Task:
    """What is regressed.

    Attributes:
        kind: of the labels; None for values that are none of these.
        why: it is taken for that, in words.
        follows: whether the output follows the raw volume.
    """

    kind: Kind | None
    why: str
    follows: bool


def task_of(found: Fingerprint, wanted: str | None = None) -> Task:
    """What labels are for.

    Args:
        found: of the volumes.
        wanted: one of :data:`KINDS`, if the user says so.

    Raises:
        VolumesError: the labels are no such thing.
    """
    if wanted is not None:
        return _asked(found, wanted)
    masks = [values.is_mask for values in found.label]
    if all(masks):
        return Task(None, "the labels are 0 and 1", False)
    if len(masks) > 1 and any(masks):
        return Task("mask+distance", "channels of the labels with 0 and 1 are masks", False)
    if found.directions.are_units:
        return Task("vectors", "the channels of the labels are vectors of length 1", False)
    if (why := _what_follows(found)) and min(explained(found)) > SAME:
        other: Kind | None = "counts" if all(map(_are_counts, found.label)) else None
        return Task("denoise" if why == _DENOISED else other, why, True)
    if len(found.label) in (2, 3) and all(_is_signed(found, n) for n in range(len(found.label))):
        return Task("vectors", "the channels of the labels have both signs, as components of vectors do", False)
    if all(map(_are_counts, found.label)):
        return Task("counts", "the labels are whole numbers, 0 and above", False)
    return Task(None, "", False)


#: What raw values are in denoising.
_DENOISED = "raw values are labels plus noise with a mean of 0"


def _what_follows(found: Fingerprint) -> str:
    """How labels depend on the raw values, in words; empty if they do not."""
    is_denoised = all(_is_denoised(found, channel) for channel in range(len(found.label)))
    return _DENOISED if is_denoised and min(explained(found)) > SAME else found.brightness


def explained(found: Fingerprint) -> list[float]:
    """Of the variance of each channel of the labels, what a line through a raw channel explains."""
    return [found.best_raw(channel)[1] for channel in range(len(found.label))]


def _are_counts(values: Values) -> bool:
    """Whether there are only whole numbers, some of which are 0; not what an image of integers has."""
    return values.are_whole and values.moments.low == 0 and values.share_of_zeros > _SOME


def _is_denoised(found: Fingerprint, channel: int) -> bool:
    """Whether raw values with the same label have that label as their mean."""
    best, _ = found.best_raw(channel)
    pairs = found.lines[channel][best]
    std = math.sqrt(pairs.yy / pairs.count)
    return abs(pairs.xy / pairs.yy - 1) < _NEARLY and abs(pairs.x - pairs.y) < _NEARLY * std


def _is_signed(found: Fingerprint, channel: int) -> bool:
    m = found.label[channel].moments
    return m.low < 0 < m.high and abs(m.mean) < 0.5 * m.std


def _asked(found: Fingerprint, wanted: str) -> Task:
    """The task that a user has named.

    Raises:
        VolumesError: the labels do not allow it.
    """
    if wanted not in KINDS:
        raise VolumesError(f"--task {wanted} is not one of {', '.join(KINDS)}.")
    masks = [values.is_mask for values in found.label]
    why = f"--task {wanted}"
    least = min(explained(found))
    if wanted == "mask+distance" and not (len(masks) > 1 and any(masks) and not all(masks)):
        raise VolumesError(
            "--task mask+distance needs labels of several channels, one of which has only the values 0 and 1. Name the "
            "folders or files of both: raw, mask, distance."
        )
    if wanted == "vectors" and len(masks) < 2:
        raise VolumesError("--task vectors needs labels of two or more channels.")
    if wanted == "denoise" and least < LEAST_LINE:
        raise VolumesError(
            f"--task denoise: a line through the raw values explains {least:.1%} of the labels; they do not look "
            "like the raw volume without noise. Are the right files paired?"
        )
    follows = wanted == "denoise" or (
        wanted in ("counts", "mean+variance", "staining") and bool(_what_follows(found)) and least > LEAST_LINE
    )
    return Task(wanted, why, follows)  # type: ignore[arg-type]
