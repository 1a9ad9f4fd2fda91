"""One final activation of each kind through upstream's own commands, and the table of all; in process: tests/model."""

import json

import pytest
import yaml
from click.testing import CliRunner

from p3d_regression.cli.main import main
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


@pytest.mark.parametrize("kind", ["activations", "losses", "metrics"])
def test_a_list_for_people_fits_into_80_columns_and_says_what_each_is_for(kind: str) -> None:
    printed = CliRunner().invoke(main, [kind]).stdout
    rows = json.loads(CliRunner().invoke(main, [kind, "--json"]).stdout)
    blocks = printed.split(f"{KEYS[kind]}: ")[1:]
    assert len(blocks) == len(rows)
    for block, row in zip(blocks, rows, strict=True):
        first, *others = block.rstrip().splitlines()
        # the line of a config stays whole
        written = yaml.safe_load(f"{KEYS[kind]}: {first}")[KEYS[kind]]
        assert (written if isinstance(written, str) else written["name"]) == row["name"]
        assert all(len(line) <= 80 for line in others)
        assert " ".join(" ".join(others).split()).startswith(" ".join(row["use"].split()))
        assert len(row["use"].split()) > 1 or row["use"] in ("MSE", "MAE")
    if kind == "activations":
        assert all(row["range_text"] in block for block, row in zip(blocks, rows, strict=True))


KEYS = {"activations": "final_activation", "losses": "loss", "metrics": "eval_metric"}
