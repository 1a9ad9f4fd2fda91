"""Whether labels depend on how bright the raw volume is."""

from collections.abc import Sequence

from p3d_regression.labels.levels import Levels
from p3d_regression.labels.linear import RawAndLabels

#: Of the variance of the labels between patches, and of that by the level of the raw patches.
_SHARE_BETWEEN, _EXPLAINED = 0.2, 0.9

#: Of the variance of the labels, what a line through the raw values explains where they are a function of these.
_IS_LINE = 0.85


def dependence(levels: Levels, of_files: Sequence[RawAndLabels]) -> str:
    """How the labels depend on the brightness, in words; empty if they do not.

    Args:
        levels: of the patches of all files.
        of_files: raw values and labels of each file; empty where it is not clear which channels belong together.
    """
    if levels.share > _SHARE_BETWEEN and levels.explained > _EXPLAINED:
        part = levels.share * levels.explained
        return f"{part:.0%} of the variance of the labels follows the brightness of the patches"
    parts = [found.voxels.explained for found in of_files if found.patches.explained > _EXPLAINED]
    if of_files and len(parts) == len(of_files) and min(parts) > _IS_LINE:
        return f"a line through the raw values explains {min(parts):.0%} of the variance of the labels"
    return ""
