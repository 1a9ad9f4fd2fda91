"""Absolute intensities through pytorch-3dunet's own commands: a level that falls, another exposure, worse than raw."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from p3d_regression.cli.main import main
from support.checks import merged
from support.lab import prediction_config, training_config, write_config
from support.ours import log_of
from support.preforked import Preforked
from support.traps import Run, Traps, codes

LEVEL = np.linspace(1000, 200, 16)[:, None, None]
RAW = [{"name": "Standardize", "mean": 600.0, "std": 250.0}, {"name": "ToTensor", "expand_dims": True}]


def volume(seed: int, noise: float = 60) -> tuple[np.ndarray, np.ndarray]:
    """A level that falls along Z, with noise and without."""
    draw = np.random.default_rng(seed)
    texture = gaussian_filter(draw.normal(size=(16, 64, 64)), 2)
    clean = LEVEL * (1 + 0.1 * texture / texture.std())
    return clean + noise * draw.normal(size=clean.shape), clean


def write(path: Path, raw: np.ndarray, label: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["raw"], file["label"] = raw.astype(np.float32), label.astype(np.float32)


def config_in(directory: Path, scaling: object, *, iterations: int = 12, factor: float = 1, offset: float = 0) -> Any:
    for seed, name in enumerate(("train", "val")):
        raw, clean = volume(seed)
        write(directory / f"{name}.h5", raw, factor * clean + offset)
    model = {"name": "UNet3D", "final_activation": "none", "target_scaling": scaling, "layer_order": "gcr"}
    config = training_config(directory, model, iterations=iterations)
    for phase in ("train", "val"):
        config["loaders"][phase]["transformer"]["raw"] = RAW
    changes = {"loss": {"name": "MSELoss"}, "eval_metric": {"name": "R2Score"}, "optimizer": {"learning_rate": 0.003}}
    config = merged(config, changes)
    config["trainer"].pop("eval_score_higher_is_better", None)
    return config


def log_lines(run: Any, what: str) -> list[str]:
    return [line for line in run.stdout.splitlines() if what in line]


@pytest.fixture(scope="module")
def denoiser(forked: Preforked, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    directory = tmp_path_factory.mktemp("denoiser")
    path = write_config(directory / "train.yml", config_in(directory, "residual"))
    assert codes(path) <= {"P3D402"}
    run = forked.run("train3dunet", "--config", path)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return directory, run


def predictions(forked: Preforked, directory: Path, out: Path, **volumes: np.ndarray) -> dict[str, np.ndarray]:
    config = prediction_config(directory, {"name": "UNet3D"})
    files = []
    for name, raw in volumes.items():
        write(out / f"{name}.h5", raw, raw)
        files.append(str(out / f"{name}.h5"))
    config["loaders"]["test"] |= {"file_paths": files, "transformer": {"raw": RAW}}
    config["loaders"]["output_dir"] = str(out / "predicted")
    run = forked.run("predict3dunet", "--config", write_config(out / "predict.yml", config))
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    found = {}
    for name in volumes:
        with h5py.File(out / "predicted" / f"{name}_predictions.h5") as file:
            found[name] = file["predictions"][()].squeeze()
    return found


class TestDenoising:
    def test_starts_from_the_raw_volume_and_gets_better(self, denoiser: tuple[Path, Any]) -> None:
        directory, run = denoiser
        numbers = log_lines(run, "target scaling: output = ")[0]
        assert re.search(r"output = 600 \+ 250 \* raw \+ \S+ \* std\(raw patch\) \* x$", numbers), numbers
        (line,) = log_lines(run, "without a network: ")
        scores = {name: float(value) for name, value in re.findall(r"(constant|itself|volume) (\S+?)(?:,|$)", line)}
        raw, clean = volume(1)
        wanted = 1 - np.mean((raw - clean) ** 2) / clean.var()
        assert scores["itself"] == pytest.approx(wanted, abs=1e-3)
        assert scores["volume"] == pytest.approx(wanted, abs=0.01)
        assert scores["constant"] == pytest.approx(0, abs=0.02)
        state = torch.load(directory / "checkpoints" / "last_checkpoint.pytorch", weights_only=True)
        (term,) = state["model_state_dict"]._metadata[""]["p3d_regression"]["output"]["target_scaling"]
        assert (term["name"], term["intercept"], term["slope"], term["in_channel"]) == ("residual", 600.0, 250.0, 0)

    def test_a_prediction_follows_the_unit_of_the_raw_volume(
        self, forked: Preforked, denoiser: tuple[Path, Any], tmp_path: Path
    ) -> None:
        raw, _ = volume(1)
        found = predictions(forked, denoiser[0], tmp_path, one=raw, other=3 * raw + 500)
        span = np.ptp(found["one"])
        assert np.abs(3 * found["one"] + 500 - found["other"]).max() < 1e-4 * 3 * span

    def test_an_affine_change_of_the_labels_changes_nothing_but_the_units(
        self, forked: Preforked, tmp_path: Path
    ) -> None:
        curves = []
        for factor, offset in ((1, 0), (1000, 5000)):
            directory = tmp_path / str(factor)
            directory.mkdir()
            config = config_in(directory, "patch", factor=factor, offset=offset, iterations=6)
            config["trainer"]["validate_after_iters"] = 2
            run = forked.run("train3dunet", "--config", write_config(directory / "train.yml", config))
            assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
            scores = [float(line.rpartition(" ")[2]) for line in log_lines(run, "Evaluation score: ")]
            curves.append(scores)
        assert len(curves[0]) >= 3
        np.testing.assert_allclose(curves[1], curves[0], atol=2e-3)

    def test_worse_than_its_input_is_said(self, forked: Preforked, tmp_path: Path) -> None:
        config = config_in(tmp_path, "standardize", iterations=4)
        run = forked.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
        assert log_lines(run, "of this validation is worse than the best line through the raw volume, 0.94")

    def test_so_it_is_with_the_metric_of_pytorch_3dunet(self, forked: Preforked, tmp_path: Path) -> None:
        config = config_in(tmp_path, "standardize", iterations=4) | {"eval_metric": {"name": "MSE"}}
        run = forked.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
        (line,) = log_lines(run, "MSE without a network: ")
        raw, clean = volume(1)
        itself = float(re.search(r"the raw volume itself (\S+),", line).group(1))  # type: ignore[union-attr]
        assert itself == pytest.approx(np.mean((raw - clean) ** 2), rel=1e-3)

    def test_statistics_of_each_patch_are_refused_with_numbers(self, forked: Preforked, tmp_path: Path) -> None:
        config = config_in(tmp_path, "residual")
        config["loaders"]["train"]["transformer"]["raw"] = [{"name": "Standardize"}, RAW[1]]
        path = write_config(tmp_path / "train.yml", config)
        assert "P3D705" in codes(path)
        run = forked.run("train3dunet", "--config", path)
        assert run.returncode != 0
        raw, _ = volume(0)
        assert f"mean: {raw.mean():.5f}"[:12] in run.stderr
        assert not (tmp_path / "checkpoints").exists()

    def test_another_patch_size_is_said(self, denoiser: tuple[Path, Any], tmp_path: Path) -> None:
        config = prediction_config(denoiser[0], {"name": "UNet3D"})
        config["loaders"]["test"]["transformer"]["raw"] = RAW
        builder = config["loaders"]["test"]["slice_builder"]
        assert "P3D613" not in codes(write_config(tmp_path / "a.yml", config))
        builder |= {"patch_shape": [16, 64, 64], "stride_shape": [16, 64, 64]}
        assert "P3D613" in codes(write_config(tmp_path / "b.yml", config))
        builder |= {"patch_shape": [2, 64, 64], "stride_shape": [2, 64, 64], "halo_shape": [1, 0, 0]}
        assert "P3D613" not in codes(write_config(tmp_path / "c.yml", config))

    def test_probed(self, denoiser: tuple[Path, Any], tmp_path: Path) -> None:
        config = prediction_config(denoiser[0], {"name": "UNet3D"})
        config["loaders"]["test"]["transformer"]["raw"] = RAW
        path = str(write_config(tmp_path / "predict.yml", config))
        checkpoint = str(denoiser[0] / "checkpoints" / "last_checkpoint.pytorch")
        result = CliRunner().invoke(main, ["probe", checkpoint, "--config", path])
        assert result.exit_code == 0, result.output
        lines = [re.split(r"  +", line.strip()) for line in result.output.splitlines()[1:8]]
        rows = {name: [float(number) for number in numbers] for name, *numbers in lines if numbers}
        raw, _ = volume(1)
        patch = raw[6:10]
        as_it_is = rows["as it is"]
        assert as_it_is[0] == pytest.approx(patch.mean(), rel=0.1)
        assert rows["doubled"][0] == pytest.approx(2 * as_it_is[0], rel=1e-4)
        assert rows["shifted by its std"][2] == pytest.approx(patch.std(), rel=1e-3)
        assert rows["mirrored along X, and back"][0] == pytest.approx(as_it_is[0], rel=0.05)
        assert "in a larger patch" in rows
        assert "give twice the output" in result.output

    def test_blended(self, forked: Preforked, denoiser: tuple[Path, Any], tmp_path: Path) -> None:
        """Through predict3dunet: named by check, blended, and better than side by side."""
        raw, clean = volume(1)
        write(tmp_path / "val.h5", raw, clean)
        config = prediction_config(denoiser[0], {"name": "UNet3D"})
        config["loaders"]["test"] |= {"file_paths": [str(tmp_path / "val.h5")], "transformer": {"raw": RAW}}
        path = tmp_path / "predict.yml"
        assert "P3D626" in codes(write_config(path, config))
        # without overlap there is nothing to blend
        config["predictor"]["blend"] = "gaussian"
        assert "P3D626" in codes(write_config(path, config))
        errors = {}
        for name, stride, predictor in (("plain", 4, {}), ("blended", 2, {"blend": "gaussian"})):
            config["loaders"]["output_dir"] = str(tmp_path / name)
            config["loaders"]["test"]["slice_builder"]["stride_shape"] = [stride, 64, 64]
            config["predictor"] = {"name": "StandardPredictor", **predictor}
            assert ("P3D626" in codes(write_config(path, config))) == (not predictor)
            run = forked.run("predict3dunet", "--config", path)
            assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
            assert bool(log_lines(run, "patches blended (gaussian)")) == bool(predictor)
            with h5py.File(tmp_path / name / "val_predictions.h5") as file:
                errors[name] = float(np.mean((file["predictions"][0] - clean) ** 2))
        assert errors["blended"] < errors["plain"]

    def test_plain_checkpoints_cannot_hold_it(self, denoiser: tuple[Path, Any], tmp_path: Path) -> None:
        checkpoint = str(denoiser[0] / "checkpoints" / "last_checkpoint.pytorch")
        result = CliRunner().invoke(main, ["export", checkpoint, str(tmp_path / "plain"), "--format", "plain"])
        assert result.exit_code != 0
        assert "adds the raw volume to the output" in result.output


def test_counts_of_another_exposure(forked: Preforked, tmp_path: Path) -> None:
    """Twice the counts are twice the prediction."""
    for seed, name in enumerate(("train", "val")):
        true = np.abs(volume(seed)[1]) / 10
        write(tmp_path / f"{name}.h5", 10.0 * np.random.default_rng(seed).poisson(true), true)
    config = config_in_place(tmp_path, "patch")
    run = forked.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    with h5py.File(tmp_path / "val.h5") as file:
        raw = file["raw"][()]
    out = tmp_path / "out"
    out.mkdir()
    found = predictions(forked, tmp_path, out, one=raw, two=2 * raw)
    assert found["two"].sum() == pytest.approx(2 * found["one"].sum(), rel=1e-3)


def config_in_place(directory: Path, scaling: object) -> Any:
    """The config for volumes that are there."""
    model = {"name": "UNet3D", "final_activation": "none", "target_scaling": scaling}
    config = training_config(directory, model, iterations=4)
    for phase in ("train", "val"):
        config["loaders"][phase]["transformer"]["raw"] = RAW
    return config


def test_resumed_with_its_own_numbers(runs: Traps) -> None:
    trap = runs.new()
    raw = {"raw": [{"name": "Standardize", "mean": 0.4, "std": 0.2}, {"name": "ToTensor", "expand_dims": True}]}
    ours: dict[str, Any] = {"model": {"final_activation": "none", "target_scaling": "residual"}}
    ours["loaders"] = {phase: {"transformer": raw} for phase in ("train", "val")}
    first: Run = trap.train(ours).succeeded()
    assert "measuring raw volumes and labels" in log_of(first)
    last = str(trap.directory / "checkpoints" / "last_checkpoint.pytorch")
    second = trap.train(merged(ours, {"trainer": {"resume": last}}), iterations=8).succeeded()
    assert "measured for the training of the checkpoint" in log_of(second)
    assert "measuring" not in log_of(second)
