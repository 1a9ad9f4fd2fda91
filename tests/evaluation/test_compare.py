"""Several runs on the same voxels."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from p3d_regression.cli.main import main
from support.evaluation import write_predictions
from support.lab import write_config


def p3d(*arguments: object) -> Any:
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Configs of two runs on five volumes; the second one has a tenth of the errors in all but one of them."""
    volumes = write_predictions(tmp_path, dict.fromkeys("abcde", (12, 14, 16)))
    (tmp_path / "better").mkdir()
    for name, (prediction, truth, _) in volumes.items():
        with h5py.File(tmp_path / "better" / f"{name}_predictions.h5", "w") as file:
            file["predictions"] = truth + (prediction - truth) * (0.1 if name != "c" else 2)
    config = yaml.safe_load((tmp_path / "predict.yml").read_text())
    config["loaders"]["output_dir"] = str(tmp_path / "better")
    return [tmp_path / "predict.yml", write_config(tmp_path / "better.yml", config)]


def test_differences_volume_by_volume(runs: list[Path], tmp_path: Path) -> None:
    found = json.loads(p3d("compare", *runs, "--json").stdout)
    (rmse,) = [part for part in found["differences"] if part["score"] == "RMSE"]
    values = [[volume["RMSE"] for volume in run["volumes"]] for run in found["runs"].values()]
    assert rmse["mean"] == pytest.approx(np.mean(np.subtract(*values[::-1])))
    assert (rmse["better"], rmse["volumes"]) == (4, 5)
    assert rmse["interval"][0] < rmse["mean"] < rmse["interval"][1]
    (r2,) = [part for part in found["differences"] if part["score"] == "R2"]
    assert r2["better"] == 4
    result = p3d("compare", *runs, "--picture", tmp_path / "runs.png")
    assert result.exit_code == 0
    assert "better in 4 of 5" in result.stdout
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_from_what_evaluate_has_written(runs: list[Path], tmp_path: Path) -> None:
    written = []
    for number, run in enumerate(runs):
        path = tmp_path / f"{number}.json"
        path.write_text(p3d("evaluate", run, "--json").stdout)
        written.append(path)
    one, other = (json.loads(p3d("compare", *each, "--json").stdout) for each in (runs, written))
    assert list(one["runs"].values()) == list(other["runs"].values())
    files = [tmp_path / name / "a_predictions.h5" for name in ("out", "better")]
    assert "better in 1 of 1" in p3d("compare", *files, "--truth", tmp_path / "a.h5").stdout


def test_what_cannot_be_compared(runs: list[Path], tmp_path: Path) -> None:
    other = yaml.safe_load(runs[1].read_text())
    other["loaders"]["test"]["file_paths"].pop()
    fewer = write_config(tmp_path / "fewer.yml", other)
    (tmp_path / "text.json").write_text('{"volumes": []}')
    for arguments, message in (
        ((runs[0], fewer), "were not scored on the same voxels: of"),
        ((runs[0], tmp_path / "text.json"), "is not what `p3d-regression evaluate --json` prints"),
        ((runs[0],), "name two runs or more"),
        ((runs[0], tmp_path / "out" / "a_predictions.h5"), "name its truth once with --truth"),
    ):
        result = p3d("compare", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
