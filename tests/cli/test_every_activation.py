"""One final activation of each kind through upstream's own commands, and the table of all; in process: tests/model."""

import json

import pytest

from support.activations import KINDS, ROWS, assert_one_function, trained_with
from support.lab import Lab
from support.preforked import Preforked


@pytest.mark.parametrize("name", KINDS)
def test_trains_validates_and_predicts_one_and_the_same_function(lab: Lab, name: str) -> None:
    trained = trained_with(lab, "plugin", name)
    assert_one_function(trained, ROWS[name])
    (line,) = [line for line in trained.predict_log.splitlines() if "P3DRegression" in line]
    assert "taken from the checkpoint" in line
    assert f"output range {ROWS[name]['range_text']}" in line


def test_the_table_for_programs(forked: Preforked) -> None:
    result = forked.run("p3d-regression", "activations", "--json")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert {row["name"]: row for row in rows} == ROWS
    assert len(rows) >= 30
    softplus = ROWS["softplus"]
    assert softplus["range"] == [0.0, None]
    assert softplus["origin"] == "torch.nn"
    assert softplus["arguments"][0] == {"name": "beta", "kind": "a number", "required": False, "default": 1.0}
    assert ROWS["bounded"]["arguments"][1]["required"] is True


def test_the_table_for_people(forked: Preforked) -> None:
    result = forked.run("p3d-regression", "activations")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for name, row in ROWS.items():
        (line,) = [line for line in lines if line.strip().startswith((f"{name} ", f"{{name: {name},"))]
        assert row["range_text"] in line
        assert row["use"] in line
