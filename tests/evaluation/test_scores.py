"""Scores of volumes, against numpy, scikit-learn's formulas, scikit-image and torchmetrics on the loaded volumes."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torchmetrics
from click.testing import CliRunner
from skimage.metrics import structural_similarity

from p3d_regression.cli.main import main
from p3d_regression.evaluation.statistics import Quantiles
from support.evaluation import write_file, write_predictions
from support.lab import write_config
from support.volumes import section_of, write_checkpoint


def evaluate(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def scored(*arguments: object) -> dict[str, Any]:
    result = evaluate(*arguments, "--json")
    assert result.exit_code in (0, 1), result.stderr
    return json.loads(result.stdout)


def by_hand(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    x, y = prediction.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    mse = np.mean((x - y) ** 2)
    return {
        "MAE": np.mean(np.abs(x - y)),
        "RMSE": math.sqrt(mse),
        "R2": 1 - mse / y.var(),
        "Pearson": np.corrcoef(x, y)[0, 1],
        "PSNR": 10 * math.log10(np.ptp(y) ** 2 / mse),
        "bias": np.mean(x - y),
    }


def test_two_volumes_and_two_channels(tmp_path: Path) -> None:
    volumes = write_predictions(tmp_path, {"a": (2, 37, 40, 33), "b": (2, 20, 30, 50)})
    found = scored(tmp_path / "predict.yml")
    ranges = [max(np.ptp(truth[c].astype(float)) for _, truth, _ in volumes.values()) for c in range(2)]
    similar = []
    for channel in range(2):
        x, y = (np.concatenate([v[i][channel].ravel() for v in volumes.values()]) for i in (0, 1))
        for name, value in by_hand(x, y).items():
            assert found["pooled"][name][channel] == pytest.approx(value, rel=1e-6), name
        for told, (prediction, truth, _) in zip(found["volumes"], volumes.values(), strict=True):
            for name, value in by_hand(prediction[channel], truth[channel]).items():
                assert told[name][channel] == pytest.approx(value, rel=1e-6), name
            wanted, full = structural_similarity(
                prediction[channel].astype(float),
                truth[channel].astype(float),
                data_range=ranges[channel],
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                full=True,
            )
            assert told["SSIM"][channel] == pytest.approx(wanted, rel=1e-6)
            similar.append((wanted, full[5:-5, 5:-5, 5:-5].size))
    for channel in range(2):
        (a, n), (b, m) = similar[2 * channel : 2 * channel + 2]
        assert found["pooled"]["SSIM"][channel] == pytest.approx((a * n + b * m) / (n + m), rel=1e-6)
    means = [np.mean([told["MAE"][c] for told in found["volumes"]]) for c in range(2)]
    assert found["over_volumes"]["MAE"]["mean"] == pytest.approx(means)


def test_further_metrics_are_those_of_torchmetrics(tmp_path: Path) -> None:
    ((prediction, truth, _),) = write_predictions(tmp_path, {"a": (20, 30, 40)}).values()
    found = scored(tmp_path / "predict.yml", "--metric", "SpearmanCorrCoef", "--metric", "concordance")["pooled"]
    x, y = (torch.from_numpy(values.astype(np.float64).ravel()) for values in (prediction, truth))
    assert found["SpearmanCorrCoef"] == pytest.approx(float(torchmetrics.SpearmanCorrCoef()(x, y)), rel=1e-6)
    assert found["concordance"] == pytest.approx(float(torchmetrics.ConcordanceCorrCoef()(x, y)), rel=1e-6)


def test_voxels_that_do_not_count(tmp_path: Path) -> None:
    ((prediction, truth, _),) = write_predictions(tmp_path, {"a": (20, 30, 40)}).values()
    mask = np.random.default_rng(1).random((20, 30, 40)) > 0.4
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["mask"] = mask.astype(np.uint8)
    border = np.zeros_like(mask)
    border[3:-3, 3:-3, 3:-3] = True
    for arguments, counts in (
        (["--mask", ":mask"], mask),
        (["--border", "3"], border),
        (["--border", 3, "--mask", ":mask"], mask & border),
    ):
        found = scored(tmp_path / "predict.yml", *arguments)
        wanted = by_hand(prediction[0][counts], truth[0][counts])
        assert {name: found["pooled"][name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
        assert found["volumes"][0]["voxels"] == counts.sum()
        assert found["pooled"]["SSIM"] is None


def test_baselines_and_the_verdict(tmp_path: Path) -> None:
    ((prediction, truth, raw),) = write_predictions(tmp_path, {"a": (20, 30, 40)}).values()
    result = evaluate(tmp_path / "predict.yml")
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "Better than the best guess without a network, the best line through the raw volume"
    )
    found = scored(tmp_path / "predict.yml")
    x, y = raw.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    line = np.polyval(np.polyfit(x, y, 1), x)
    wanted = {"best constant": y.std(), "raw volume itself": math.sqrt(np.mean((x - y) ** 2))}
    wanted["best line through the raw volume"] = math.sqrt(np.mean((line - y) ** 2))
    assert {name: guess["RMSE"] for name, guess in found["baselines"].items()} == pytest.approx(wanted, rel=1e-6)
    with h5py.File(tmp_path / "out" / "a_predictions.h5", "a") as file:
        file["predictions"][...] = prediction + 60
    result = evaluate(tmp_path / "predict.yml")
    assert result.exit_code == 1
    assert result.stdout.startswith("WORSE than the best line through the raw volume, which needs no network: RMSE ")


def test_a_raw_volume_in_other_units_is_no_guess(tmp_path: Path) -> None:
    write_predictions(tmp_path, {"a": (20, 30, 40)})
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["raw"][...] = 100 * file["raw"][...] + 5000
    assert list(scored(tmp_path / "predict.yml")["baselines"]) == ["best constant", "best line through the raw volume"]
    assert "raw volume itself" not in evaluate(tmp_path / "predict.yml").stdout


def test_an_interval_needs_five_volumes(tmp_path: Path) -> None:
    write_predictions(tmp_path, dict.fromkeys("abcde", (12, 14, 16)))
    found = scored(tmp_path / "predict.yml")["over_volumes"]["RMSE"]
    values = [v["RMSE"] for v in scored(tmp_path / "predict.yml")["volumes"]]
    low, high = found["interval"]
    assert min(values) <= low < found["mean"] < high <= max(values)


def test_planes_too_few_for_a_window_have_a_flat_one(tmp_path: Path) -> None:
    ((prediction, truth, _),) = write_predictions(tmp_path, {"a": (3, 30, 40)}).values()
    wanted = [
        structural_similarity(
            prediction[0][z].astype(float),
            truth[0][z].astype(float),
            data_range=float(np.ptp(truth)),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for z in range(3)
    ]
    assert scored(tmp_path / "predict.yml")["pooled"]["SSIM"] == pytest.approx(np.mean(wanted), rel=1e-6)


def test_quantiles_of_numbers_of_any_size() -> None:
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(0, 10.0**k, 20_000) for k in range(-6, 6)]).astype(np.float32)
    quantiles = Quantiles()
    for part in np.array_split(values, 7):
        quantiles.add(part)
    for share in (0.01, 0.05, 0.3, 0.5, 0.9, 0.999):
        assert quantiles.at(share)[0] == pytest.approx(np.quantile(values, share), rel=5e-4, abs=1e-6)
    bounds = np.array([-100.0, -1e-3, 0.0, 2.5])
    wanted = [np.mean(values <= bound) for bound in bounds]
    assert quantiles.share_below(bounds) == pytest.approx(wanted, abs=2e-4)
    edges = np.array([-1e3, -1.0, 0.5, 1e3])
    np.testing.assert_allclose(quantiles.histogram(edges), np.histogram(values, edges)[0], rtol=2e-3)


class TestCalibration:
    def write(self, directory: Path, factor: float) -> None:
        draw = np.random.default_rng(0)
        (directory / "out").mkdir()
        names = ["first", "second", "third"]
        for name in names:
            std = draw.uniform(1, 5, (16, 40, 40))
            truth = draw.normal(0, 30, std.shape)
            mean = truth + factor * std * draw.normal(size=std.shape)
            write_file(directory / f"{name}.h5", label=(truth.astype(np.float32), {}))
            prediction = np.stack([mean, std**2]).astype(np.float32)
            held = {"channel_names": ["mean", "variance"]}
            write_file(directory / "out" / f"{name}_predictions.h5", predictions=(prediction, held))
        loaders = {
            "output_dir": str(directory / "out"),
            "test": {"file_paths": [str(directory / f"{n}.h5") for n in names]},
        }
        write_config(directory / "predict.yml", {"loaders": loaders})

    def test_coverage(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1.0)
        found = scored(tmp_path / "predict.yml")["calibration"]
        wanted = {"0.5": 0.5, "0.68": 0.68, "0.9": 0.9, "0.95": 0.95}
        assert found["coverage"] == pytest.approx(wanted, abs=0.01)
        assert found["sharpness"] == pytest.approx(3, abs=0.02)
        assert found["NLL"] == pytest.approx(
            np.mean(0.5 * np.log(2 * np.pi * np.linspace(1, 5, 999) ** 2) + 0.5), abs=0.01
        )

    def test_fitted_on_other_volumes(self, tmp_path: Path) -> None:
        self.write(tmp_path, 2.0)
        found = scored(tmp_path / "predict.yml", "--calibrate", "first")
        assert [volume["name"] for volume in found["volumes"]] == ["second", "third"]
        told = found["calibration"]
        assert told["coverage"]["0.9"] < 0.65
        assert told["calibrated"]["coverage"]["0.9"] == pytest.approx(0.9, abs=0.01)
        assert told["calibrated"]["NLL"] < told["NLL"]
        with h5py.File(tmp_path / "out" / "second_predictions.h5") as file:
            (fitted,) = json.loads(file["predictions"].attrs["calibration"])
        assert fitted["factor"] == pytest.approx(2, abs=0.03)
        assert fitted["widths"]["0.9"] == pytest.approx(2 * 1.645, rel=0.02)
        assert fitted["volumes"] == ["first"]


class TestWhere:
    def test_seams_and_the_worst_part(self, tmp_path: Path) -> None:
        shape = {"patch_shape": [16, 16, 16], "stride_shape": [16, 16, 16]}
        ((_, truth, _),) = write_predictions(tmp_path, {"a": (48, 40, 64)}, **shape).values()
        offset = np.random.default_rng(2).normal(size=(3, 3, 4))
        smooth = truth[0] + np.kron(offset, np.ones((16, 16, 16)))[:48, :40, :64] * 5
        smooth += np.random.default_rng(3).normal(0, 1, smooth.shape)
        smooth[16:32, 32:40, 48:64] += 100
        with h5py.File(tmp_path / "out" / "a_predictions.h5", "a") as file:
            file["predictions"][...] = smooth[None]
        (volume,) = scored(tmp_path / "predict.yml")["volumes"]
        assert volume["worst"][0]["corner"] == [16, 32, 48]
        error = smooth - truth[0]
        wanted = math.sqrt(np.mean(error[16:32, 32:40, 48:64] ** 2))
        assert volume["worst"][0]["RMSE"] == pytest.approx(wanted, rel=1e-4)
        steps = [np.abs(np.diff(error, axis=axis)).mean(tuple(i for i in range(3) if i != axis)) for axis in range(3)]
        borders = [[15, 31], [15, 23, 31], [15, 31, 47]]
        at = np.mean([step[border].mean() for step, border in zip(steps, borders, strict=True)])
        other = np.mean([np.delete(step, border).mean() for step, border in zip(steps, borders, strict=True)])
        # the last row of patches is shifted, so that it ends with the volume: borders at 23 and 24 as well
        assert volume["seam"] == pytest.approx(at / other, rel=0.05)
        assert volume["seam"] > 2
        assert "at borders of patches the error steps" in evaluate(tmp_path / "predict.yml").stdout

    def test_squashed_extremes_are_said(self, tmp_path: Path) -> None:
        write_predictions(tmp_path, {"a": (20, 30, 40)})
        assert "extremes are squashed" in evaluate(tmp_path / "predict.yml").stdout

    def test_maps_and_rows(self, tmp_path: Path) -> None:
        ((prediction, truth, _),) = write_predictions(
            tmp_path, {"a": (20, 30, 40)}, element_size_um=[2.0, 1.0, 1.0]
        ).values()
        evaluate(tmp_path / "predict.yml", "--maps", tmp_path / "maps", "--csv", tmp_path / "scores.csv")
        with h5py.File(tmp_path / "maps" / "a_error.h5") as file:
            np.testing.assert_allclose(file["error"][()], prediction - truth, atol=1e-5)
            assert list(file["error"].attrs["element_size_um"]) == [2.0, 1.0, 1.0]
        header, first, last = (tmp_path / "scores.csv").read_text().splitlines()
        assert header.startswith("volume,channel,RMSE,MAE")
        assert first.startswith("a,0,")
        assert last.startswith("all voxels,0,")


class TestBadInput:
    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((30, 40, 20), "its axes are in another order. Transpose it so that its axes Z, X, Y become Z, Y, X"),
            ((30, 20, 41), "it is another volume"),
            ((2, 30, 20, 40), "has 1 channel(s) to compare, but"),
            ((30, 20, 40, 2), "its channels come last"),
            ((30,), "a volume consists of numbers"),
        ],
    )
    def test_shapes(self, tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
        a = write_file(tmp_path / "a.h5", predictions=(np.zeros((1, 30, 20, 40)), {}))
        b = write_file(tmp_path / "b.h5", label=(np.zeros(shape), {}))
        result = evaluate(a, b)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize(("dataset", "value"), [("predictions", math.nan), ("label", math.inf)])
    def test_not_finite(self, tmp_path: Path, dataset: str, value: float) -> None:
        values = {"predictions": np.zeros((1, 30, 20, 40)), "label": np.ones((30, 20, 40))}
        values[dataset][..., 17, 3, 5] = value
        a = write_file(tmp_path / "a.h5", predictions=(values["predictions"], {}))
        b = write_file(tmp_path / "b.h5", label=(values["label"], {}))
        result = evaluate(a, b, "--csv", tmp_path / "scores.csv")
        assert result.exit_code == 2
        assert "the first one at (Z, Y, X) = (17, 3, 5)" in result.stderr
        assert not (tmp_path / "scores.csv").exists()

    def test_nan_counts_unless_the_training_ignored_it(self, tmp_path: Path) -> None:
        truth = np.random.default_rng(0).normal(size=(12, 13, 14))
        write_file(tmp_path / "a.h5", raw=(truth, {}), label=(np.where(truth > 1, np.nan, truth), {}))
        (tmp_path / "out").mkdir()
        write_file(tmp_path / "out" / "a_predictions.h5", predictions=(truth[None] + 0.5, {}))
        loaders = {"output_dir": str(tmp_path / "out"), "test": {"file_paths": [str(tmp_path / "a.h5")]}}
        for ignored, code in ((math.nan, 1), (-1, 2)):
            path = tmp_path / f"{ignored}.pytorch"
            write_checkpoint(path, section_of(1), 0, loss={"name": "MSELoss", "ignore_index": ignored})
            config = write_config(tmp_path / "predict.yml", {"model_path": str(path), "loaders": loaders})
            result = evaluate(config, "--json")
            assert result.exit_code == code, result.stderr
            if code == 1:
                assert json.loads(result.stdout)["volumes"][0]["voxels"] == np.sum(truth <= 1)

    def test_outputs_that_cannot_be_written_are_said_before(self, tmp_path: Path) -> None:
        for option in ("--csv", "--report"):
            result = evaluate(tmp_path / "a.h5", tmp_path / "b.h5", option, tmp_path / "no" / "such")
            assert result.exit_code == 2
            assert f"{option} {tmp_path / 'no' / 'such'} cannot be written" in result.stderr

    def test_what_is_missing(self, tmp_path: Path) -> None:
        a = write_file(tmp_path / "a.h5", predictions=(np.zeros((1, 4, 4, 4)), {}))
        for arguments, message in (
            ((a, tmp_path / "no.h5"), "no.h5 does not exist"),
            ((a, f"{a}:label"), f"has no dataset label; it has predictions. Write {a}:DATASET."),
            ((a, f"{a}:predictions"), "would be compared with itself"),
            ((a,), "name a prediction config (.yml), or a prediction and its truth"),
        ):
            result = evaluate(*arguments)
            assert result.exit_code == 2
            assert message in result.stderr

    def test_of_a_config(self, tmp_path: Path) -> None:
        write_predictions(tmp_path, {"a": (8, 9, 10), "b": (8, 9, 10)})
        config = tmp_path / "predict.yml"
        for arguments, message in (
            (["--truth", tmp_path / "a.h5"], "--truth is given 1 time(s), but the config has 2 volumes"),
            (["--truth", ":no"], "has no dataset no; it has label, raw"),
            (["--calibrate", "c"], "--calibrate c is none of the volumes a, b"),
            (["--calibrate", "a"], "--calibrate needs predictions with a variance or a spread"),
            (["--border", "4"], "no voxel counts"),
            (
                ["--metric", "Spearmann"],
                "--metric Spearmann: 'Spearmann' is not a known metric; did you mean Spearman?",
            ),
        ):
            result = evaluate(config, *arguments)
            assert result.exit_code == 2
            assert message in result.stderr, result.stderr
        (tmp_path / "out" / "b_predictions.h5").unlink()
        result = evaluate(config)
        assert "b_predictions.h5, the prediction of" in result.stderr
        assert "Run predict3dunet first" in result.stderr
