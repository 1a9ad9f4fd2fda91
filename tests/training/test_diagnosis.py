"""What is noticed while a training runs."""

import math

import pytest
import torch

from p3d_regression.interval import REAL_LINE, Interval
from p3d_regression.model.last_layer import LastLayer
from p3d_regression.training.diagnosis import OutputRange, cause_of_constant, cause_of_no_number, statistics

GOOD = torch.tensor([0.0, 1.0, 5.0])
NAN, INF = torch.tensor([0.0, math.nan, 1.0]), torch.tensor([math.inf, 1.0, 3.0])


def test_statistics_in_words() -> None:
    assert statistics(GOOD) == "0 to 5, mean 2"
    assert statistics(torch.cat([NAN, INF])) == "0 to 3, mean 1.25; 1 of 6 NaN; 1 of 6 infinite"
    assert statistics(torch.full((2,), math.nan)) == "2 of 2 NaN"


@pytest.mark.parametrize(
    ("raw", "labels", "output", "masks_nan", "part"),
    [
        (NAN, NAN, NAN, False, "The raw volume holds"),
        (GOOD, NAN, GOOD, False, "ignore_index: .nan"),
        (GOOD, INF, GOOD, True, "The labels hold infinite"),
        (GOOD, NAN, INF, True, "optimizer.learning_rate"),
        (GOOD, GOOD, GOOD * 1e20, False, "optimizer.learning_rate"),
        (GOOD, GOOD, GOOD, False, "outside the range that this loss is for"),
    ],
)
def test_the_cause_of_a_loss_that_is_no_number(
    raw: torch.Tensor, labels: torch.Tensor, output: torch.Tensor, masks_nan: bool, part: str
) -> None:
    assert part in cause_of_no_number(raw, labels, output, masks_nan=masks_nan)


def test_a_constant_channel_is_found_over_all_batches() -> None:
    seen = OutputRange()
    assert seen.constants() == {}
    for value in (1.0, 2.0):
        batch = torch.stack([torch.full((2, 3, 3), 7.0), torch.full((2, 3, 3), value)])[None]
        seen.add(batch)
    assert seen.constants() == {0: 7.0}


@pytest.mark.parametrize(
    ("value", "interval", "part"),
    [
        (1.0, Interval(1.0, 1.0), "has no other value"),
        (0.0, Interval(0.0), "its gradient is 0"),
        (3.0, REAL_LINE, "learning_rate may be too high"),
    ],
)
def test_the_cause_of_a_constant_output(value: float, interval: Interval, part: str) -> None:
    assert part in cause_of_constant(value, LastLayer("relu", (interval,)))
