"""The structural similarity of volumes that are larger than memory, strip by strip."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from p3d_regression.evaluation.statistics import Array

#: Standard deviation of the window, in voxels, and its radius: as in scikit-image with ``gaussian_weights``.
_SIGMA = 1.5
RADIUS = 5

_K1, _K2 = 0.01, 0.03

#: Rows that are computed with at once: what fits into a processor's cache.
_ROWS = 48


def similarity(prediction: Array, truth: Array, data_range: float, *, flat: bool) -> tuple[float, int]:
    """The sum of the structural similarity over all voxels whose window lies inside, and how many these are.

    As ``skimage.metrics.structural_similarity(..., gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``,
    after Wang et al., IEEE Transactions on Image Processing 13 (2004).

    Args:
        prediction, truth: shape (D, H, W).
        data_range: of the truth.
        flat: whether the windows are flat, (Y, X), because the volume has too few planes.
    """

    def of_strip(strip: tuple[Array, Array]) -> tuple[float, int]:
        x, y = (values.astype(np.float64) for values in strip)
        found = _of_strip(x, y, data_range, flat=flat)
        return float(found.sum()), found.size

    # a strip takes some 20 times its size
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        sums = list(threads.map(of_strip, _strips(prediction, truth)))
    return sum(total for total, _ in sums), sum(count for _, count in sums)


def _strips(prediction: Array, truth: Array) -> Iterator[tuple[Array, Array]]:
    rows = truth.shape[1] - 2 * RADIUS
    for first in range(0, max(rows, 0), _ROWS):
        part = slice(first, min(first + _ROWS, rows) + 2 * RADIUS)
        yield prediction[:, part], truth[:, part]


def _of_strip(x: Array, y: Array, data_range: float, *, flat: bool) -> Array:
    mean_x, mean_y, xx, yy, xy = (_blurred(values, flat=flat) for values in (x, y, x * x, y * y, x * y))
    variances = xx - mean_x * mean_x + yy - mean_y * mean_y
    covariance = xy - mean_x * mean_y
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    found: Array = above / ((mean_x * mean_x + mean_y * mean_y + c1) * (variances + c2))
    return found


def _blurred(values: Array, *, flat: bool) -> Array:
    """The mean of the window around each voxel whose window lies inside."""
    from scipy.ndimage import correlate1d

    distance = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-((distance / _SIGMA) ** 2) / 2)
    window /= window.sum()
    inside = slice(RADIUS, -RADIUS)
    for axis in (1, 2) if flat else (0, 1, 2):
        values = correlate1d(values, window, axis)[(slice(None),) * axis + (inside,)]
    return values
