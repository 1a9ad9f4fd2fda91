"""Configs that check once passed, and that failed in training: augmentation, vectors, bounds, devices, types."""

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import training_config, write_config

DRAWS = np.random.default_rng(0).normal(size=(3, 4, 64, 96))
SMOOTH = gaussian_filter(DRAWS, (0, 1, 3, 3)) * 10
OURS = {"name": "UNet3D", "final_activation": "none"}
PLAIN = {"name": "UNet3D", "is_segmentation": False}
FLIPPED = {"raw": [{"name": "RandomFlip"}, {"name": "ToTensor", "expand_dims": True}]}
FLIPPED["label"] = [{"name": "RandomFlip"}, {"name": "ToTensor", "expand_dims": False}]


def config_with(directory: Path, label: np.ndarray, model: dict[str, Any] = OURS) -> dict[str, Any]:
    for name in ("train", "val"):
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file["raw"], file["label"] = SMOOTH[0], label.astype(np.float32)
    config = copy.deepcopy(training_config(directory, model))
    if label.ndim == 4:
        config["model"]["out_channels"] = len(label)
    return config


def found(config: dict[str, Any], path: Path) -> dict[str, Any]:
    report = check_file(str(write_config(path, config)), [], rules(), with_data=True, progress=Silent())
    assert report.failures == []
    return {finding.rule.code: finding.found for finding in report.findings}


class TestRepeats:
    def config(self, directory: Path, model: dict[str, Any], workers: int | None, **step: Any) -> dict[str, Any]:
        config = config_with(directory, SMOOTH[1], model)
        config["loaders"]["train"]["transformer"]["raw"].insert(0, {"name": "AdditiveGaussianNoise", **step})
        config["loaders"] = {k: v for k, v in config["loaders"].items() if k != "num_workers"}
        return config if workers is None else merged(config, {"loaders": {"num_workers": workers}})

    @pytest.mark.parametrize("workers", [None, 1, 4])
    def test_in_plain_configs(self, tmp_path: Path, workers: int | None) -> None:
        config = self.config(tmp_path, PLAIN, workers)
        every = found(config, tmp_path / "a.yml")
        assert "AdditiveGaussianNoise" in every["P3D313"].message
        fixed = every["P3D313"].fix.applied_to(config)
        assert fixed["model"]["final_activation"] == "none"
        assert "P3D313" not in found(fixed, tmp_path / "b.yml")

    def test_not_where_nothing_repeats(self, tmp_path: Path) -> None:
        for number, config in enumerate(
            [
                self.config(tmp_path, PLAIN, 0),
                self.config(tmp_path, OURS, 4),
                self.config(tmp_path, PLAIN, 4, execution_probability=0),
                config_with(tmp_path, SMOOTH[1], PLAIN),
            ]
        ):
            assert "P3D313" not in found(config, tmp_path / f"{number}.yml")


class TestVectors:
    @pytest.mark.parametrize(
        ("label", "what"),
        [
            (SMOOTH / np.linalg.norm(SMOOTH, axis=0), "unit vectors"),
            (np.where(SMOOTH[0] > 0, 1, 0) * SMOOTH[:2] / np.linalg.norm(SMOOTH[:2], axis=0), "unit vectors"),
            (SMOOTH - SMOOTH.mean((1, 2, 3), keepdims=True), "components of vectors"),
        ],
    )
    def test_under_flips(self, tmp_path: Path, label: np.ndarray, what: str) -> None:
        config = config_with(tmp_path, label)
        config["loaders"]["train"]["transformer"] = FLIPPED
        every = found(config, tmp_path / "a.yml")
        assert what in every["P3D314"].message
        fixed = every["P3D314"].fix.applied_to(config)
        assert [step["name"] for steps in fixed["loaders"]["train"]["transformer"].values() for step in steps] == [
            "ToTensor",
            "ToTensor",
        ]
        assert "P3D314" not in found(fixed, tmp_path / "b.yml")

    @pytest.mark.parametrize("label", [np.abs(SMOOTH), SMOOTH + 30, 1 / (1 + np.exp(-SMOOTH))])
    def test_other_channels(self, tmp_path: Path, label: np.ndarray) -> None:
        config = config_with(tmp_path, label)
        config["loaders"]["train"]["transformer"] = FLIPPED
        assert "P3D314" not in found(config, tmp_path / "a.yml")


class TestCutOff:
    @pytest.mark.parametrize("bounds", [(-2.0, 2.0), (-100.0, 2.0), (0.0, 100.0)])
    def test_by_normalize(self, tmp_path: Path, bounds: tuple[float, float]) -> None:
        config = config_with(tmp_path, SMOOTH[1])
        step = {"name": "Normalize", "min_value": bounds[0], "max_value": bounds[1]}
        for phase in ("train", "val"):
            config["loaders"][phase]["transformer"]["label"].insert(0, dict(step))
        every = found(config, tmp_path / "a.yml")
        assert every["P3D315"].key == "loaders.train.transformer.label[0]"
        assert "P3D315" not in found(every["P3D315"].fix.applied_to(config), tmp_path / "b.yml")

    @pytest.mark.parametrize("label", [SMOOTH[1], np.maximum(SMOOTH[1], 0), (SMOOTH[1] > 0) * 1.0])
    def test_bounds_that_the_labels_have(self, tmp_path: Path, label: np.ndarray) -> None:
        config = config_with(tmp_path, label)
        assert "P3D315" not in found(config, tmp_path / "a.yml")
        step = {"name": "Normalize", "min_value": -50.0, "max_value": 50.0}
        config["loaders"]["train"]["transformer"]["label"].insert(0, step)
        assert "P3D315" not in found(config, tmp_path / "b.yml")


def test_a_variance_that_the_loss_does_not_take_is_found_before_the_training(tmp_path: Path) -> None:
    config = config_with(tmp_path, 1e-4 * SMOOTH[1])
    config["model"] |= {"out_channels": 2, "final_activation": ["none", "softplus"], "target_scaling": "standardize"}
    config["loss"] = {"name": "GaussianNLLLoss", "eps": 1e-6}
    every = found(config, tmp_path / "a.yml")
    assert every["P3D703"].key == "loss.eps"
    fixed = found(every["P3D703"].fix.applied_to(config), tmp_path / "b.yml")
    assert "P3D703" not in fixed


def test_devices(tmp_path: Path) -> None:
    config = config_with(tmp_path, SMOOTH[1])
    assert found(config | {"device": "gpu"}, tmp_path / "a.yml")["P3D234"].key == "device"
    for device, is_there in (("cuda", torch.cuda.is_available()), ("cpu", True)):
        every = found(config | {"device": device}, tmp_path / "b.yml")
        assert ("P3D235" in every) == (not is_there)
        assert "P3D234" not in every


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"manual_seed": "1e-3"}, "P3D236"),
        ({"manual_seed": [None]}, "P3D236"),
        ({"loaders": {"dataset": 0}}, "P3D401"),
        ({"loaders": {"batch_size": True}}, "P3D401"),
        ({"trainer": {"max_num_epochs": float("nan")}}, "P3D213"),
        ({"trainer": {"validate_after_iters": ["a", "b"]}}, "P3D213"),
        ({"trainer": {"checkpoint_dir": 0}}, "P3D213"),
        ({"trainer": {"resume": 1}}, "P3D213"),
        ({"optimizer": {"learning_rate": 10**9}}, "P3D233"),
        ({"loaders": {"val": {"slice_builder": {"patch_shape": None}}}}, "P3D406"),
        ({"model": {"num_groups": 0.5}}, "P3D112"),
    ],
)
def test_values_that_stop_a_training_after_it_has_started(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    """Each stopped a real training of a config that check had found nothing against."""
    config = merged(config_with(tmp_path, SMOOTH[1]), change)
    every = found(config, tmp_path / "a.yml")
    assert code in every
    assert code not in found(every[code].fix.applied_to(config), tmp_path / "b.yml")
