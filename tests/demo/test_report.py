"""The demo's picture and table."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from p3d_regression.demo.data import Brain
from p3d_regression.demo.jobs import JOBS
from p3d_regression.demo.report import draw, table


@pytest.mark.parametrize("job", ["distance", "uncertainty"])
def test_a_row_for_each_prediction(job: str, brain: Brain, tmp_path: Path) -> None:
    test = JOBS[job].parts(brain)["test"]
    prediction = np.repeat(np.nan_to_num(test.label)[None], JOBS[job].channels, 0)
    prediction[1:] = 4
    draw(JOBS[job], {"[none]": prediction}, test, tmp_path / "one.png")
    draw(JOBS[job], {"[none]": prediction, "other": prediction}, test, tmp_path / "two.png")
    one, two = (imread(tmp_path / name) for name in ("one.png", "two.png"))
    assert two.shape == (2 * one.shape[0], *one.shape[1:])
    assert one[..., :3].std() > 0.05


def test_a_list_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    scores = dict.fromkeys(("RMSE", "MAE", "R2", "Pearson"), 0.5) | {"slope": None}
    found: Any = SimpleNamespace(plain={"pooled": scores}, guesses=[])
    Console(width=80).print(table(JOBS["uncertainty"], {"final_activation: [none, softplus]": found}))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "softplus" in line]
    assert row.split() == ["final_activation:", "[none,", "softplus]", "0.50", "0.50", "0.50", "0.50", "-"]
