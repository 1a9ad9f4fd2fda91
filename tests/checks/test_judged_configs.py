"""Transforms, metrics and numbers that make another target, or none, of what the user has."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import training_config, write_config, write_volumes

MODEL = {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"}
TENSOR = {"name": "ToTensor", "expand_dims": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("judged")
    write_volumes(directory)
    return directory


def found(config: dict[str, Any], path: Path, *codes: str, with_data: bool = False) -> dict[str, Any]:
    report = check_file(str(write_config(path, config)), [], rules(), with_data=with_data, progress=Silent())
    assert report.failures == []
    return {finding.rule.code: finding.found for finding in report.findings if finding.rule.code in codes}


def with_label(data: Path, *steps: dict[str, Any]) -> dict[str, Any]:
    config = training_config(data, MODEL)
    for phase in ("train", "val"):
        config["loaders"][phase]["transformer"]["label"] = [*steps, TENSOR]
    return config


class TestLabels:
    @pytest.mark.parametrize(
        "step",
        [
            {"name": "AdditiveGaussianNoise", "scale": [0.0, 5.0]},
            {"name": "AdditivePoissonNoise", "lam": [0.0, 1.0], "execution_probability": 1.0},
            {"name": "GaussianBlur3D"},
            {"name": "RandomContrast"},
        ],
    )
    def test_changed_at_random(self, data: Path, tmp_path: Path, step: dict[str, Any]) -> None:
        config = with_label(data, step)
        finding = found(config, tmp_path / "a.yml", "P3D305")["P3D305"]
        assert finding.message.startswith(step["name"])
        fixed = merged(config, {})
        for phase in ("train", "val"):
            fixed["loaders"][phase]["transformer"]["label"] = [TENSOR]
        assert found(fixed, tmp_path / "b.yml", "P3D305") == {}

    @pytest.mark.parametrize(
        "step",
        [
            {"name": "RandomFlip"},
            {"name": "RandomRotate90"},
            {"name": "ElasticDeformation", "spline_order": 3},
            {"name": "CropToFixed", "size": [64, 64]},
            {"name": "AdditiveGaussianNoise", "execution_probability": 0},
        ],
    )
    def test_moved_is_fine(self, data: Path, tmp_path: Path, step: dict[str, Any]) -> None:
        assert found(with_label(data, step), tmp_path / "a.yml", "P3D305", "P3D311") == {}

    @pytest.mark.parametrize(
        "name", ["StandardLabelToBoundary", "LabelToAffinities", "BlobsToMask", "LabelToZAffinities"]
    )
    def test_replaced_by_masks(self, data: Path, tmp_path: Path, name: str) -> None:
        assert "P3D311" in found(with_label(data, {"name": name, "offsets": [1]}), tmp_path / "a.yml", "P3D311")

    @pytest.mark.parametrize(
        ("step", "argument"),
        [
            ({"name": "AdditiveGaussianNoise", "std": 0.1}, "std"),
            ({"name": "Normalize", "mean": 3.0, "std": 2.0}, "mean"),
            ({"name": "Standardize", "pmin": 1}, "pmin"),
            ({"name": "PercentileNormalizer", "pmin": 1, "pmax": 99, "mean": 3}, "mean"),
        ],
    )
    def test_arguments_of_other_transforms(
        self, data: Path, tmp_path: Path, step: dict[str, Any], argument: str
    ) -> None:
        config = training_config(data, MODEL)
        config["loaders"]["train"]["transformer"]["raw"] = [step, TENSOR]
        finding = found(config, tmp_path / "a.yml", "P3D302")["P3D302"]
        assert f"raw[0].{argument}" in finding.key or argument != "std"
        assert found(finding.fix.applied_to(config), tmp_path / "b.yml", "P3D302") == {} or "mean" in step

    def test_their_own_are_fine(self, data: Path, tmp_path: Path) -> None:
        config = training_config(data, MODEL)
        steps = [
            {"name": "Standardize", "mean": 1.0, "std": 2.0},
            {"name": "PercentileNormalizer", "pmin": 0, "pmax": 9},
        ]
        config["loaders"]["train"]["transformer"]["raw"] = [*steps, TENSOR]
        assert found(config, tmp_path / "a.yml", "P3D302") == {}


class TestPlanes:
    @pytest.mark.parametrize("kind", ["raw", "label"])
    def test_without_channels(self, data: Path, tmp_path: Path, kind: str) -> None:
        config = training_config(data, MODEL)
        config["loaders"]["val"]["transformer"][kind] = [{"name": "Standardize", "channelwise": True}, TENSOR]
        finding = found(config, tmp_path / "a.yml", "P3D312", with_data=True)["P3D312"]
        assert finding.key == f"loaders.val.transformer.{kind}[0].channelwise"
        assert found(finding.fix.applied_to(config), tmp_path / "b.yml", "P3D312", with_data=True) == {}

    def test_with_channels(self, data: Path, tmp_path: Path) -> None:
        for name in ("train", "val"):
            with h5py.File(data / f"{name}.h5") as source, h5py.File(tmp_path / f"{name}.h5", "w") as file:
                file["raw"] = np.stack([source["raw"][()]] * 2)
                file["label"] = source["label"][()]
        config = training_config(tmp_path, {**MODEL, "in_channels": 2})
        config["loaders"]["train"]["transformer"]["raw"] = [{"name": "Standardize", "channelwise": True}, TENSOR]
        assert found(config, tmp_path / "a.yml", "P3D312", "P3D405", with_data=True) == {}


class TestMetric:
    @pytest.mark.parametrize("metric", ["MeanIoU", "DiceCoefficient", "AdaptedRandError", "BoundaryAdaptedRandError"])
    @pytest.mark.parametrize("loss", ["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"])
    def test_of_segmentation(self, data: Path, tmp_path: Path, metric: str, loss: str) -> None:
        config = training_config(data, MODEL) | {"loss": {"name": loss}, "eval_metric": {"name": metric}}
        config["trainer"]["eval_score_higher_is_better"] = not metric.endswith("Error")
        config["lr_scheduler"] = {"name": "ReduceLROnPlateau", "mode": "min" if metric.endswith("Error") else "max"}
        fixed = found(config, tmp_path / "a.yml", "P3D222")["P3D222"].fix.applied_to(config)
        assert found(fixed, tmp_path / "b.yml", "P3D222", "P3D202", "P3D203") == {}
        assert fixed["eval_metric"] == {"name": "MSE"}

    @pytest.mark.parametrize(
        ("loss", "model"),
        [("BCEDiceLoss", {}), ("BCEWithLogitsLoss", {}), ("MSELoss", {"final_activation": "sigmoid"})],
    )
    def test_of_masks(self, data: Path, tmp_path: Path, loss: str, model: dict[str, Any]) -> None:
        config = training_config(data, {"name": "UNet3D", **model}) | {"loss": {"name": loss}}
        config |= {"eval_metric": {"name": "MeanIoU"}}
        assert found(config, tmp_path / "a.yml", "P3D222") == {}


class TestShapes:
    def volumes(self, directory: Path, **arrays: Any) -> dict[str, Any]:
        for name in ("train", "val"):
            with h5py.File(directory / f"{name}.h5", "w") as file:
                for key, value in arrays.items():
                    file[key] = value[name] if isinstance(value, dict) else value
        return training_config(directory, MODEL)

    @pytest.mark.parametrize("wanted", [1, 3, 4])
    def test_files_with_different_channels_have_no_fix_that_fails(self, tmp_path: Path, wanted: int) -> None:
        raw = {"train": np.zeros((3, 4, 64, 64), "f4"), "val": np.zeros((4, 4, 64, 64), "f4")}
        config = self.volumes(tmp_path, raw=raw, label=np.zeros((4, 64, 64), "f4"))
        config["model"]["in_channels"] = wanted
        finding = found(config, tmp_path / "a.yml", "P3D405", with_data=True)["P3D405"]
        assert "train.h5 has 3 channel(s)" in finding.message
        assert "val.h5 has 4:" in finding.message
        assert not finding.fix.changes

    def test_axes_in_another_order(self, tmp_path: Path) -> None:
        config = self.volumes(tmp_path, raw=np.zeros((8, 64, 96), "f4"), label=np.zeros((64, 96, 8), "f4"))
        finding = found(config, tmp_path / "a.yml", "P3D405", with_data=True)["P3D405"]
        assert "numpy.transpose(label, (2, 0, 1))" in finding.fix.advice

    def test_channels_last(self, tmp_path: Path) -> None:
        config = self.volumes(tmp_path, raw=np.zeros((64, 64, 96, 2), "f4"), label=np.zeros((64, 96, 2), "f4"))
        config["model"]["in_channels"] = 2
        finding = found(config, tmp_path / "a.yml", "P3D405", with_data=True)["P3D405"]
        assert "numpy.moveaxis(raw, -1, 0)" in finding.fix.advice

    @pytest.mark.parametrize("text", ["4, 64, 64", "[4,64,64]", "(4, 64, 64)"])
    def test_a_text_where_a_list_belongs(self, data: Path, tmp_path: Path, text: str) -> None:
        config = training_config(data, MODEL)
        config["loaders"]["val"]["slice_builder"]["patch_shape"] = text
        fixed = found(config, tmp_path / "a.yml", "P3D406", with_data=True)["P3D406"].fix.applied_to(config)
        assert fixed["loaders"]["val"]["slice_builder"]["patch_shape"] == [4, 64, 64]

    def test_gaps_in_training(self, data: Path, tmp_path: Path) -> None:
        config = training_config(data, MODEL)
        config["loaders"]["train"]["slice_builder"]["stride_shape"] = [8, 64, 64]
        fixed = found(config, tmp_path / "a.yml", "P3D409")["P3D409"].fix.applied_to(config)
        assert fixed["loaders"]["train"]["slice_builder"]["stride_shape"] == [4, 64, 64]

    @pytest.mark.parametrize("rate", [0, 0.0, 1e-9])
    def test_a_rate_of_nothing(self, data: Path, tmp_path: Path, rate: float) -> None:
        config = merged(training_config(data, MODEL), {"optimizer": {"learning_rate": rate}})
        assert "P3D233" in found(config, tmp_path / "a.yml", "P3D233")
