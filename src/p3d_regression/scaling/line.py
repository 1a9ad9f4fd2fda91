"""The line from the raw volume to the labels, for output channels that follow the raw volume."""

import math

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.labels.linear import Pairs, RawAndLabels
from p3d_regression.scaling.spec import PLACE
from p3d_regression.scaling.terms import SMALLEST, Follow, Line, single

#: Of the variance of the labels, what raw values have to explain so that following them makes sense.
_LEAST_EXPLAINED = 0.05

#: Of the variance of the means of patches, what a line explains where it is known well.
_EXACT = 0.95

#: Within it labels are proportional to raw values.
_SAME_RATIO = 0.005

#: Within it two numbers are meant to be the same.
_TOLERANCE = 0.05


def line_of(term: Follow, found: RawAndLabels, stored: Pairs, source: str) -> Follow:
    """Return a term with its numbers.

    Where labels are in the units of the file's raw values (denoising) or proportional to them (counts), the line is
    exactly that, and not the one of the least squares, which noise in the raw values makes too flat. Brighter raw
    volumes then give an output that is brighter in the same way.

    Args:
        term: without numbers, or without ``spread``.
        found: raw values and labels that a training is shown, in the channels of the term.
        stored: raw values as the network sees them, without random transforms, and those of the file.
        source: which volumes, for error messages.

    Raises:
        ConfigError: the raw volume is constant, or does not tell the labels.
    """
    spread = single(found.spread)
    if not found.voxels.count or spread < SMALLEST:
        message = f"{term.kind} cannot be measured: the raw patches of {source} are constant, or hold NaN."
        raise ConfigError(PLACE, message, write(PLACE, "standardize"))
    if term.line is not None:
        return Follow(term.kind, term.in_channel, Line(term.line.intercept, term.line.slope, term.line.scale, spread))
    if found.voxels.explained < _LEAST_EXPLAINED:
        raise ConfigError(
            PLACE,
            f"{term.kind} lets the output follow the raw volume, but a line through the raw values of {source} "
            f"explains only {found.voxels.explained:.1%} of the variance of the labels.",
            write(PLACE, "standardize"),
        )
    intercept, slope = _line(found, stored)
    left = found.left(intercept, slope, by_voxel=term.kind == "residual")
    # in float32, what is left of labels that are a line of the raw volume is rounding
    scale = max(left, 1e-6 * math.sqrt(found.voxels.yy / found.voxels.count)) / spread
    return Follow(term.kind, term.in_channel, Line(single(intercept), single(slope), single(scale), spread))


def _file_units(stored: Pairs) -> tuple[float, float]:
    """Offset and unit that turn raw values as the network sees them into those of the file."""
    is_line = stored.count > 0 and stored.explained > 1 - 1e-6 and stored.slope != 0
    return (stored.intercept, stored.slope) if is_line else (0.0, 1.0)


def in_units_of_file(found: RawAndLabels, stored: Pairs) -> tuple[float, float] | None:
    """Offset and unit that turn raw values as the network sees them into those of the file, if labels have its units.

    Args:
        found, stored: as for :func:`line_of`.
    """
    voxels, (offset, unit) = found.voxels, _file_units(stored)
    mean, std = offset + unit * voxels.x, abs(unit) * math.sqrt(voxels.xx / voxels.count)
    is_same = abs(voxels.y - mean) <= _TOLERANCE * std and _is_between(1.0, voxels.slope / unit, voxels.explained)
    return (offset, unit) if is_same else None


def _line(found: RawAndLabels, stored: Pairs) -> tuple[float, float]:
    if same := in_units_of_file(found, stored):
        return same
    voxels, (offset, unit) = found.voxels, _file_units(stored)
    mean, slope = offset + unit * voxels.x, voxels.slope / unit
    # noise is small in the mean of a patch, and makes no line too flat there
    pairs = found.patches if found.patches.explained > _EXACT else voxels
    # noise may take dark voxels below 0
    is_positive = unit > 0 and offset + unit * found.low_raw >= -mean / 2 and found.low_label >= -voxels.y / 2
    ratio = voxels.y / mean if mean > 0 else 0.0
    if is_positive and pairs is not voxels and abs(pairs.slope / unit - ratio) < _SAME_RATIO * ratio:
        return ratio * offset, ratio * unit
    if is_positive and pairs is voxels and _is_between(ratio, slope, voxels.explained):
        return ratio * offset, ratio * unit
    return pairs.intercept, pairs.slope


def _is_between(ratio: float, slope: float, explained: float) -> bool:
    """Whether a slope can be the true one: noise in the raw values makes that of the least squares smaller.

    The true one is between it and the inverse of the other regression's.
    """
    return (1 - _TOLERANCE) * slope <= ratio <= (1 + _TOLERANCE) * slope / explained if slope > 0 else False
