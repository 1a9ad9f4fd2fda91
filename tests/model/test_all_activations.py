"""Every name in ``p3d-regression activations``: one function in training, evaluation and from a checkpoint."""

import pytest

from support.activations import ROWS
from support.one_function import assert_one_function_in_process


@pytest.mark.parametrize("name", ROWS)
def test_trains_evaluates_and_loads_one_and_the_same_function(name: str) -> None:
    assert_one_function_in_process(ROWS[name])
