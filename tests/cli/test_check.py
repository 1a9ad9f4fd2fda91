"""``p3d-regression check`` on real configs, and its numbers against what upstream reaches."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from p3d_regression.demo.data import Brain
from p3d_regression.demo.jobs import JOBS, UPSTREAMS_LAYERS
from p3d_regression.demo.training import Run
from support.checks import merged
from support.environments import Environment, Programs
from support.lab import Trained, prediction_config, training_config, write_config, write_volumes
from support.preforked import Preforked

OURS = {"name": "UNet3D", "final_activation": "none"}
SOFTMAX = {"name": "UNet3D", "final_sigmoid": False}


def check(environment: Programs, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    result = environment.run("p3d-regression", "check", "--json", *arguments)
    assert "Traceback" not in result.stderr
    return result.returncode, json.loads(result.stdout)


def codes(report: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in report["findings"]}


@pytest.fixture(scope="module")
def demo(brain: Brain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data: signed distance to white matter, from a brain MRI."""
    directory = tmp_path_factory.mktemp("demo")
    for name, part in JOBS["distance"].parts(brain).items():
        part.write(directory / f"{name}.h5")
    return directory


class TestTheFloorIsWhereUpstreamGetsStuck:
    def trained(self, forked: Preforked, demo: Path, layer: str) -> tuple[dict[str, Any], list[float], list[float]]:
        """The report of the check; scores and losses of all validations of the training that follows."""
        job = JOBS["distance"] if layer == "none" else replace(JOBS["distance"], model=(UPSTREAMS_LAYERS[layer],))
        run = Run(job, demo / layer, demo, iterations=3)
        run.directory.mkdir()
        for path, text in run.configs().items():
            path.write_text(
                text.replace("R2Score", "MSE").replace("trainer:", "trainer:\n  eval_score_higher_is_better: false")
            )
        code, (report,) = check(forked, run.directory / "train.yml")
        assert code == (layer != "none")
        environment = forked.having(P3D_REGRESSION_CHECKS="warn")
        result = environment.run("train3dunet", "--config", run.directory / "train.yml")
        assert result.returncode == 0, result.stderr
        scalars = Trained(run.directory, "", "").scalars
        scores, losses = ([value for _, value in scalars[f"val_{kind}_avg"]] for kind in ("eval_score", "loss"))
        assert len(scores) == 4
        return report, scores, losses

    def test_softmax_at_the_floor_itself(self, forked: Preforked, demo: Path) -> None:
        report, scores, losses = self.trained(forked, demo, "softmax")
        floor = report["phases"]["val"]["floor"]["MSE"]
        assert scores == pytest.approx([floor] * 4, rel=1e-6)
        assert losses[-1] < losses[0]
        assert {"P3D101", "P3D106", "P3D501"} <= codes(report)
        (found,) = [f for f in report["findings"] if f["code"] == "P3D501" and " val " in f["message"]]
        assert f"MSE cannot fall below {floor:.6g}" in found["message"]
        assert found["fix"] == "model:\n  # delete final_sigmoid\n  final_activation: none"

    def test_sigmoid_approaches_it_from_above(self, forked: Preforked, demo: Path) -> None:
        report, scores, losses = self.trained(forked, demo, "sigmoid")
        floor = report["phases"]["val"]["floor"]["MSE"]
        assert all(score >= floor for score in scores)
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] < scores[0]
        assert losses[-1] < losses[0]
        # the loss is computed before the Sigmoid: nothing keeps it up
        assert report["phases"]["val"]["floor"]["MSELoss"] == 0
        assert {"P3D106", "P3D501"} <= codes(report)

    def test_none_has_no_floor(self, forked: Preforked, demo: Path) -> None:
        report, scores, _ = self.trained(forked, demo, "none")
        assert report["findings"] == []
        val = report["phases"]["val"]
        assert val["floor"] == {"MSELoss": 0, "MSE": 0}
        # what a training has to beat: the variance of the labels that it is validated on
        assert val["constant"]["MSE"] == pytest.approx(val["labels"][0]["std"] ** 2)
        assert min(scores) > 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    write_volumes(directory)
    return directory


class TestOutput:
    def test_for_programs(self, plugin: Environment, data: Path) -> None:
        wrong = write_config(data / "wrong.yml", training_config(data, SOFTMAX))
        good = write_config(data / "good.yml", training_config(data, OURS | {"target_scaling": "standardize"}))
        code, (first, second) = check(plugin, wrong, good)
        assert code == 1
        assert [first["config"], second["config"]] == [str(wrong), str(good)]
        for finding in first["findings"]:
            assert finding.keys() == {"code", "name", "severity", "key", "message", "fix", "changes"}
        assert second["findings"] == []
        with h5py.File(data / "train.h5") as file:
            label = file["label"][()].astype(np.float64)
        (found,) = second["phases"]["train"]["labels"]
        assert found.keys() == {"count", "min", "max", "mean", "std", "nan_count", "inf_count"}
        shown = np.stack([label[..., :64], label[..., 32:]])
        assert found["count"] == shown.size
        assert (found["min"], found["max"]) == (shown.min(), shown.max())
        assert found["mean"] == pytest.approx(shown.mean())
        assert found["std"] == pytest.approx(shown.std())
        assert found["nan_count"] == found["inf_count"] == 0
        assert first["phases"]["train"]["floor"]["MSE"] == pytest.approx(((shown - 1) ** 2).mean())
        assert first["phases"]["train"]["constant"]["MSE"] == pytest.approx(shown.var())

    def test_nan_is_null(self, forked: Preforked, tmp_path: Path) -> None:
        write_volumes(tmp_path)
        with h5py.File(tmp_path / "train.h5", "a") as file:
            file["label"][1, 2, 3] = np.nan
            file["label"][1, 2, 4] = np.inf
        path = write_config(tmp_path / "train.yml", training_config(tmp_path, OURS))
        code, (report,) = check(forked, path)
        assert code == 1
        assert codes(report) == {"P3D502"}
        train = report["phases"]["train"]
        assert (train["labels"][0]["nan_count"], train["labels"][0]["inf_count"]) == (1, 1)
        assert train["labels"][0]["max"] < 100
        assert train["floor"] == train["constant"] == {"MSELoss": None, "MSE": None}

    def test_for_people(self, forked: Preforked, data: Path) -> None:
        path = write_config(data / "wrong.yml", training_config(data, SOFTMAX))
        result = forked.run("p3d-regression", "check", path)
        assert result.returncode == 1
        lines = result.stdout.splitlines()
        assert lines[0] == str(path)
        (index,) = [i for i, line in enumerate(lines) if "P3D101 error model.final_sigmoid: false is a Softmax" in line]
        assert lines[index + 1].strip() == "model:"
        assert lines[index + 2].strip() == "# delete final_sigmoid"
        assert lines[index + 3].strip() == "final_activation: none"
        with h5py.File(data / "val.h5") as file:
            label = file["label"][()].astype(float)
        # of one channel a Softmax is 1 everywhere
        floor, constant = np.mean((label - 1) ** 2), label.var()
        assert f"  val MSE: at least {floor:.6g}; the best constant reaches {constant:.6g}" in lines
        assert lines[-1].startswith("4 error(s), 0 warning(s).")
        assert result.stderr == ""

    def test_without_data_no_file_is_opened(self, forked: Preforked, data: Path) -> None:
        config = merged(training_config(data, SOFTMAX), {"loaders": {"train": {"file_paths": ["/no/such/file.h5"]}}})
        path = write_config(data / "wrong.yml", config)
        code, (report,) = check(forked, "--no-data", path)
        assert code == 1
        assert codes(report) == {"P3D101", "P3D106"}
        assert "phases" not in report
        code, (report,) = check(forked, path)
        assert {"P3D101", "P3D106", "P3D403"} <= codes(report)

    def test_select_and_ignore(self, forked: Preforked, data: Path) -> None:
        path = write_config(data / "wrong.yml", training_config(data, SOFTMAX))
        assert codes(check(forked, path, "--select", "P3D101,P3D5")[1][0]) == {"P3D101", "P3D501"}
        assert codes(check(forked, path, "--ignore", "P3D5", "--ignore", "P3D106")[1][0]) == {"P3D101"}
        code, (report,) = check(forked, path, "--select", "P3D6")
        assert (code, report["findings"]) == (0, [])
        result = forked.run("p3d-regression", "check", path, "--select", "P3D999")
        assert result.returncode == 2
        assert "'P3D999' is not a rule" in result.stderr

    def test_names_no_config(self, forked: Preforked) -> None:
        result = forked.run("p3d-regression", "check")
        assert result.returncode == 2
        assert "name the configs" in result.stderr

    def test_a_rule_is_explained(self, forked: Preforked) -> None:
        result = forked.run("p3d-regression", "rule", "P3D202")
        assert result.returncode == 0
        assert result.stdout.startswith("### P3D202 score-direction\n")
        listed = forked.run("p3d-regression", "rule").stdout.splitlines()
        assert "P3D202  error     score-direction" in listed
        assert forked.run("p3d-regression", "rule", "P3D999").returncode == 2


class TestUpstreamsOptions:
    @pytest.fixture
    def predict(self, data: Path, tmp_path: Path) -> Path:
        return write_config(tmp_path / "predict.yml", prediction_config(data, OURS))

    def test_override_the_config(self, forked: Preforked, data: Path, predict: Path) -> None:
        missing = data / "not there.pytorch"
        options = ["--loaders.test.file_paths", data / "train.h5", data / "no.h5", "--model_path", missing]
        code, (report,) = check(forked, predict, *options)
        assert code == 1
        assert codes(report) == {"P3D403", "P3D601", "P3D626"}
        messages = " ".join(finding["message"] for finding in report["findings"])
        assert "no.h5" in messages
        assert "not there.pytorch" in messages
        options = ["--loaders.test.slice_builder.patch_shape", "4", "64", "640"]
        code, (report,) = check(forked, "--config", predict, *options)
        assert "P3D406" in codes(report)

    def test_are_those_of_upstream(self, forked: Preforked, predict: Path) -> None:
        result = forked.run("p3d-regression", "check", predict, "--nonsense", "5")
        assert result.returncode == 2
        assert "unrecognized arguments: --nonsense 5" in result.stderr
        assert "Traceback" not in result.stderr

    def test_that_do_not_fit_the_config(self, forked: Preforked, data: Path) -> None:
        path = write_config(data / "good.yml", training_config(data, OURS))
        code, (report,) = check(forked, path, "--loaders.test.file_paths", "a.h5")
        assert code == 2
        (failure,) = report["failures"]
        assert "pytorch-3dunet rejects --loaders.test.file_paths a.h5: Invalid config key" in failure


class TestPrediction:
    def test_labels_of_the_test_volume(self, forked: Preforked, data: Path, tmp_path: Path) -> None:
        path = write_config(tmp_path / "predict.yml", prediction_config(data, OURS))
        _, (report,) = check(forked, path, "--ignore", "P3D601")
        assert report["findings"] == []
        assert report["phases"].keys() == {"test"}
        assert report["phases"]["test"]["labels"][0]["count"] == 4 * 64 * 64
        assert report["phases"]["test"]["floor"] == {}

    def test_a_layer_that_was_not_trained_with(self, forked: Preforked, tmp_path: Path) -> None:
        """Upstream's own keys: nothing in the checkpoint tells, but the copy of the training config does."""
        write_volumes(tmp_path)
        train = write_config(
            tmp_path / "train.yml", training_config(tmp_path, {"name": "UNet3D", "is_segmentation": False})
        )
        assert forked.run("train3dunet", "--config", train).returncode == 0
        wrong = write_config(tmp_path / "wrong.yml", prediction_config(tmp_path, {"name": "UNet3D"}))
        good = write_config(
            tmp_path / "good.yml", prediction_config(tmp_path, {"name": "UNet3D", "is_segmentation": False})
        )
        code, (found, fine) = check(forked, wrong, good)
        assert code == 1
        (finding,) = found["findings"]
        assert finding["code"] == "P3D602"
        assert "trained with the last layer none" in finding["message"]
        assert finding["fix"] == "model:\n  is_segmentation: false"
        assert fine["findings"] == []


def test_imports_no_more_of_what_is_large_than_a_training_does(plugin: Environment, data: Path) -> None:
    """How long it takes is measured by the benchmarks; what would make it slow is not imported."""
    path = write_config(data / "good.yml", training_config(data, OURS))
    plugin.check(f"""
        import sys
        import pytorch3dunet.train
        before = set(sys.modules)
        from click.testing import CliRunner
        from p3d_regression.cli.main import main
        result = CliRunner().invoke(main, ["check", "--no-data", {str(path)!r}])
        assert result.exit_code == 0, result.output
        new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
        assert not new & {{"torchmetrics", "matplotlib", "pandas", "nilearn"}}, new
        assert "torch._dynamo" not in sys.modules
    """)
