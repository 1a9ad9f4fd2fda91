"""``p3d-regression demo``, the README's first command, for real: every demo starts pytorch-3dunet's own commands."""

import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.cli.main import main
from p3d_regression.demo import training
from p3d_regression.demo.data import Brain
from p3d_regression.demo.jobs import JOBS
from p3d_regression.demo.training import Run
from support.checks import Silent
from support.environments import Environment
from support.preforked import Preforked


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "p3d-demo"


def test_learns_values_that_upstream_could_not_say(plugin: Environment, out: Path) -> None:
    """Fewer iterations than the default, which only does better: the promise must hold with room to spare."""
    result = plugin.run("p3d-regression", "demo", "--out", out, "--iterations", "40")
    assert result.returncode == 0, result.stdout + result.stderr
    with h5py.File(out / "test.h5") as file:
        label = file["label"][()].astype(np.float64)
    with h5py.File(out / "predictions" / "test_predictions.h5") as file:
        prediction = file["predictions"][0]
    brain = np.isfinite(label)
    mse = np.mean((prediction - label)[brain] ** 2)
    assert mse < label[brain].var() / 2
    assert prediction[brain].min() < -3
    assert prediction[brain].max() > 5
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("final_activation: none ")]
    assert f"{math.sqrt(mse):.2f}" in row
    assert f"{1 - mse / label[brain].var():.2f}" in row
    assert f"{label[brain].std():.2f}" in result.stdout
    assert "mean of the training labels" in result.stdout
    assert "<h2>test</h2>" in (out / "report.html").read_text()
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_its_prediction_has_no_seams(out: Path) -> None:
    report = check_file(str(out / "predict.yml"), [], rules(), with_data=True, progress=Silent())
    assert [finding.rule.code for finding in report.findings] == []
    with h5py.File(out / "predictions" / "test_predictions.h5") as file:
        assert file["predictions"].attrs["blend"] == "gaussian"


def test_again_in_its_own_directory_and_compared_with_upstream(
    forked: Preforked, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_forks(command: str, config: Path, watch: Callable[[str], None], variables: dict[str, str]) -> None:
        done = forked.having(**variables).run(command, "--config", config)
        assert done.returncode == 0, done.stdout + done.stderr
        for line in done.stdout.splitlines():
            watch(line)

    monkeypatch.setattr(training, "run_command", as_forks)
    result = CliRunner().invoke(main, ["demo", "--out", str(out), "--iterations", "1", "--compare"])
    assert result.exit_code == 0, result.output
    for layer in ("sigmoid", "softmax"):
        assert f"pytorch-3dunet's {layer}" in result.stdout
        with h5py.File(out / f"upstream-{layer}" / "predictions" / "test_predictions.h5") as file:
            predicted = np.unique(file["predictions"])
        assert predicted[0] >= 0
        assert predicted[-1] <= 1
        assert (len(predicted) == 1) == (layer == "softmax")


@pytest.mark.parametrize("job", JOBS)
def test_configs_of_every_job_have_no_findings(job: str, brain: Brain, tmp_path: Path) -> None:
    for name, part in JOBS[job].parts(brain).items():
        part.write(tmp_path / f"{name}.h5")
    (train, text), _ = Run(JOBS[job], tmp_path, tmp_path, iterations=360).configs().items()
    train.write_text(text)
    report = check_file(str(train), [], rules(), with_data=True, progress=Silent())
    assert [finding.rule.code for finding in report.findings] == []


def test_what_is_compared_has_a_counterpart() -> None:
    result = CliRunner().invoke(main, ["demo", "--job", "counts", "--compare"])
    assert result.exit_code == 2
    assert "--compare is for --job distance" in result.output


def test_stops_where_the_plugin_is_not_active(forked: Preforked, tmp_path: Path) -> None:
    """Else it would show squashed predictions under the plugin's name."""
    environment = forked.having(TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    result = environment.run("p3d-regression", "demo", "--out", tmp_path / "out", "--iterations", "1")
    assert result.returncode == 1
    assert (
        "The plugin wrote nothing into this log; `p3d-regression doctor` reports whether it is active." in result.stderr
    )
    assert not (tmp_path / "out" / "demo.png").exists()


def test_a_foreign_directory_is_refused(forked: Preforked, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = forked.run("p3d-regression", "demo", "--out", tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: {tmp_path} is not empty")
