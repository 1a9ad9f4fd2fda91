"""From moments of labels to numbers."""

import math

import numpy as np
import pytest

from p3d_regression import ConfigError
from p3d_regression.labels.moments import Block, Moments, Weights
from p3d_regression.scaling.measured import numbers_of
from p3d_regression.scaling.terms import Numbers


def moments(*values: float) -> Moments:
    array = np.array(values, np.float64).reshape(1, 1, -1)
    return Moments.of(Block(array, Weights.ones(array.shape)))


def test_mean_and_population_std() -> None:
    assert numbers_of([moments(1, 3), moments(0, 20)], [(0, False), (1, False)], "loaders.train") == [
        Numbers(2.0, 1.0),
        Numbers(10.0, 10.0),
    ]


def test_a_variance_is_scaled_by_the_variance() -> None:
    assert numbers_of([moments(0, 20)], [(0, False), (0, True)], "x") == [Numbers(10.0, 10.0), Numbers(0.0, 100.0)]


def test_numbers_have_the_digits_of_float32() -> None:
    """So that a line of the log, pasted into a config, is equal to what a checkpoint remembers."""
    (found,) = numbers_of([moments(0, 1 / 3)], [(0, False)], "x")
    assert found == Numbers(0.16666667, 0.16666667)
    assert np.float32(found.mean) == np.float32(1 / 6)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([moments(1, 3), moments(5, 5)], "the labels of loaders.train (2 files), channel 1, are 5 in every voxel"),
        ([moments(1, 3), Moments()], "no voxel of the labels of loaders.train (2 files), channel 1, counts"),
        ([moments(1, math.nan), moments(1, 3)], "channel 0, hold 1 NaN and 0 infinite value(s)"),
        ([moments(1, math.inf), moments(1, 3)], "channel 0, hold 0 NaN and 1 infinite value(s)"),
        ([moments(1e9, 1e9 + 10), moments(1, 3)], "channel 0, have the std 5 around 1e+09, which float32 rounds off"),
        ([moments(0, 1e-42), moments(1, 3)], "which float32 cannot represent"),
        ([moments(0, 1e100), moments(1, 3)], "which float32 cannot represent"),
    ],
)
def test_degenerate_labels_are_an_error_with_source_and_channel(labels: list[Moments], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        numbers_of(labels, [(0, False), (1, False)], "loaders.train (2 files)")
    assert str(caught.value).startswith("model.target_scaling: standardize cannot be measured: ")
    assert why in str(caught.value)


def test_labels_of_another_number_of_channels() -> None:
    with pytest.raises(ConfigError, match=r"have 1 channel\(s\), the model predicts 2"):
        numbers_of([moments(1, 3)], [(0, False), (1, False)], "loaders.train")
