"""What the values of volumes say of their origin."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from p3d_regression.checks.registry import rules
from p3d_regression.checks.rules.values import fill_of
from p3d_regression.checks.run import check_file
from p3d_regression.labels.moments import Block, Moments, Weights
from support.checks import Silent
from support.lab import training_config, write_config

MODEL = {"name": "UNet3D", "final_activation": "none"}
SMOOTH = gaussian_filter(np.random.default_rng(0).normal(size=(2, 4, 64, 96)), (0, 1, 3, 3)) * 10


def config_with(directory: Path, **arrays: Any) -> dict[str, Any]:
    """Train and val volumes: an array for both, or one for each."""
    for index, name in enumerate(("train", "val")):
        with h5py.File(directory / f"{name}.h5", "w") as file:
            for key, value in ({"raw": SMOOTH, "label": SMOOTH[::-1]} | arrays).items():
                file[key] = value[index] if isinstance(value, list | tuple) or value.shape[0] == 2 else value
    return training_config(directory, MODEL)


def found(config: dict[str, Any], path: Path) -> dict[str, Any]:
    report = check_file(str(write_config(path, config)), [], rules(), with_data=True, progress=Silent())
    assert report.failures == []
    return {finding.rule.code: finding.found for finding in report.findings}


def filled(value: float, dtype: str = "float32", *, scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
    labels = SMOOTH * scale + offset
    labels[:, :, :14] = value
    return labels.astype(dtype)


class TestFill:
    @pytest.mark.parametrize(
        ("labels", "value"),
        [
            (filled(-9999), -9999.0),
            (filled(1e6), 1e6),
            (filled(65535, "uint16", scale=300, offset=9000), 65535.0),
            (filled(-1, scale=0.5, offset=20), -1.0),
            (filled(0, scale=5, offset=1000), 0.0),
            (filled(-32768, "int16", scale=100), -32768.0),
        ],
    )
    def test_is_named_and_nothing_else_is_said_of_it(self, tmp_path: Path, labels: np.ndarray, value: float) -> None:
        config = config_with(tmp_path, label=labels)
        every = found(config, tmp_path / "a.yml")
        assert every["P3D510"].fix.changes[0].value == value
        assert "P3D704" not in every
        fixed = every["P3D510"].fix.applied_to(config)
        assert "P3D510" not in found(fixed, tmp_path / "b.yml")

    @pytest.mark.parametrize(
        "labels",
        [
            SMOOTH,
            np.maximum(SMOOTH, 0),  # a distance outside of objects
            (SMOOTH > 0.5).astype("float32"),  # a mask
            np.round(np.maximum(SMOOTH, 0)).astype("uint8"),  # counts
            np.clip(SMOOTH, -1, 1),  # clipped
            np.round(SMOOTH),
        ],
    )
    def test_true_values_are_not(self, tmp_path: Path, labels: np.ndarray) -> None:
        assert "P3D510" not in found(config_with(tmp_path, label=labels), tmp_path / "a.yml")

    def test_the_ends_are_exact_whatever_the_blocks(self) -> None:
        values = filled(-9999)[0].astype(np.float32)
        whole = Moments.of(Block(values, Weights.ones(values.shape)))
        merged = Moments()
        for plane in values:
            for row in (plane[:7], plane[7:14], plane[14:]):
                merged.merge(Moments.of(Block(row[None], Weights.ones((1, *row.shape)))))
        assert (merged.low, merged.high, merged.at_low, merged.at_high) == (
            values.min(),
            values.max(),
            (values == -9999).sum(),
            1,
        )
        assert (whole.at_low, whole.second_low) == (merged.at_low, np.sort(np.unique(values))[1])
        assert fill_of(whole) == fill_of(merged) == -9999.0


class TestConstant:
    def test_labels(self, tmp_path: Path) -> None:
        config = config_with(tmp_path, label=[np.zeros((4, 64, 96), "f4"), SMOOTH[0]])
        every = found(config, tmp_path / "a.yml")
        assert "0 in every voxel" in every["P3D511"].message
        assert "P3D704" not in every

    def test_raw(self, tmp_path: Path) -> None:
        for dtype in ("f4", "u2"):
            config = config_with(tmp_path, raw=[np.full((4, 64, 96), 7, dtype), SMOOTH[0]])
            assert "7 in every voxel" in found(config, tmp_path / "a.yml")["P3D512"].message


class TestUnits:
    @pytest.mark.parametrize("kind", ["label", "raw"])
    @pytest.mark.parametrize("change", [lambda x: 1000 * x, lambda x: x + 500])
    def test_of_another_export(self, tmp_path: Path, kind: str, change: Any) -> None:
        config = config_with(tmp_path, **{kind: [SMOOTH[0], change(SMOOTH[1])]})
        assert found(config, tmp_path / "a.yml")["P3D513"].key == f"loaders.{kind}_internal_path"

    def test_of_one_export(self, tmp_path: Path) -> None:
        config = config_with(tmp_path, label=[SMOOTH[0], 3 * SMOOTH[1] + 2], raw=[SMOOTH[0], 2 * SMOOTH[1]])
        assert "P3D513" not in found(config, tmp_path / "a.yml")

    def test_labels_that_are_the_raw_volume(self, tmp_path: Path) -> None:
        config = config_with(tmp_path)
        assert "P3D514" not in found(config, tmp_path / "a.yml")
        config["loaders"]["label_internal_path"] = "raw"
        assert "P3D514" in found(config, tmp_path / "b.yml")


class TestIntegers:
    @pytest.mark.parametrize("kind", ["raw", "label"])
    @pytest.mark.parametrize(
        ("step", "argument"),
        [
            ({"name": "Standardize", "mean": 1000, "std": 300}, "mean"),
            ({"name": "Normalize", "min_value": 100, "max_value": 900}, "min_value"),
        ],
    )
    def test_wrap(self, tmp_path: Path, kind: str, step: dict[str, Any], argument: str) -> None:
        config = config_with(tmp_path, **{kind: (1000 + 100 * SMOOTH).astype("uint16")})
        config["loaders"]["train"]["transformer"][kind] = [step, {"name": "ToTensor", "expand_dims": True}]
        finding = found(config, tmp_path / "a.yml")["P3D515"]
        assert finding.key == f"loaders.train.transformer.{kind}[0].{argument}"
        fixed = finding.fix.applied_to(config)
        assert isinstance(fixed["loaders"]["train"]["transformer"][kind][0][argument], float)
        assert "P3D515" not in found(fixed, tmp_path / "b.yml")

    def test_signed_ones_and_floats_do_not(self, tmp_path: Path) -> None:
        for dtype in ("int16", "float32"):
            config = config_with(tmp_path, label=(1000 + 100 * SMOOTH).astype(dtype))
            step = {"name": "Standardize", "mean": 1000, "std": 300}
            config["loaders"]["train"]["transformer"]["label"] = [step, {"name": "ToTensor", "expand_dims": True}]
            assert "P3D515" not in found(config, tmp_path / "a.yml")


class TestBrightness:
    """Patches of one plane: what differs between planes is between patches."""

    LEVEL = np.linspace(1000, 200, 8)[:, None, None]
    DETAIL = gaussian_filter(np.random.default_rng(3).normal(size=(8, 64, 96)), (0, 2, 2)) * 5

    def config(self, directory: Path, raw: np.ndarray, label: np.ndarray, order: str = "gcr") -> dict[str, Any]:
        config = config_with(directory, raw=raw, label=label)
        config["model"]["layer_order"] = order
        for phase in ("train", "val"):
            config["loaders"][phase]["slice_builder"] |= {"patch_shape": [2, 64, 64], "stride_shape": [1, 64, 32]}
        return config

    @pytest.mark.parametrize("order", ["gcr", "cgl"])
    def test_denoising_where_the_level_falls(self, tmp_path: Path, order: str) -> None:
        clean = self.LEVEL * (1 + 0.02 * self.DETAIL)
        noisy = clean + np.random.default_rng(0).normal(size=clean.shape) * 20
        config = self.config(tmp_path, noisy, clean, order)
        standardised = found(config, tmp_path / "a.yml")["P3D516"]
        assert standardised.key == "loaders.train.transformer.raw[0]"
        fixed = standardised.fix.applied_to(config)
        assert fixed["model"]["target_scaling"] == "residual"
        assert {"P3D516", "P3D705"}.isdisjoint(found(fixed, tmp_path / "b.yml"))
        del fixed["model"]["target_scaling"]
        blind = found(fixed, tmp_path / "c.yml")["P3D516"]
        assert blind.key == "model.layer_order"
        fixed = blind.fix.applied_to(fixed)
        assert fixed["model"]["target_scaling"] == "residual"
        assert "P3D516" not in found(fixed, tmp_path / "d.yml")
        fixed["model"] |= {"final_activation": "softplus", "target_scaling": "none"}
        assert found(fixed, tmp_path / "e.yml")["P3D516"].fix.changes[0].value == "cr"

    def test_density_of_two_materials(self, tmp_path: Path) -> None:
        units = np.where(np.arange(8)[:, None, None] < 4, -800.0, 40.0) + 30 * self.DETAIL
        config = self.config(tmp_path, units, 1 + units / 1000)
        assert "P3D516" in found(config, tmp_path / "a.yml")

    @pytest.mark.parametrize(
        "label",
        [
            np.broadcast_to(DETAIL, (8, 64, 96)),  # of shapes alone
            np.maximum(DETAIL, 0),
            (DETAIL > 0.5).astype("float32"),
            DETAIL * np.linspace(1, 2, 8)[::-1, None, None] ** 2,
        ],
    )
    def test_labels_of_shapes(self, tmp_path: Path, label: np.ndarray) -> None:
        config = self.config(tmp_path, self.LEVEL * (1 + 0.02 * self.DETAIL), np.array(label))
        assert "P3D516" not in found(config, tmp_path / "a.yml")


class TestLossScale:
    @pytest.mark.parametrize(
        ("loss", "acts"),
        [
            ({"name": "HuberLoss", "delta": 0.002}, "an L1 loss"),
            ({"name": "SmoothL1Loss", "beta": 0.001}, "an L1 loss"),
            ({"name": "HuberLoss", "delta": 5000.0}, "a squared loss"),
        ],
    )
    def test_a_threshold_far_from_the_labels(self, tmp_path: Path, loss: dict[str, Any], acts: str) -> None:
        config = config_with(tmp_path) | {"loss": loss}
        finding = found(config, tmp_path / "a.yml")["P3D517"]
        assert acts in finding.message
        assert "P3D517" not in found(finding.fix.applied_to(config), tmp_path / "b.yml")

    @pytest.mark.parametrize("loss", [{"name": "HuberLoss", "delta": 0.5}, {"name": "MSELoss"}, {"name": "L1Loss"}])
    def test_others(self, tmp_path: Path, loss: dict[str, Any]) -> None:
        assert "P3D517" not in found(config_with(tmp_path) | {"loss": loss}, tmp_path / "a.yml")

    def test_in_the_units_of_the_labels(self, tmp_path: Path) -> None:
        """Two photons of four thousand."""
        config = config_with(tmp_path, label=1000 * SMOOTH) | {"loss": {"name": "HuberLoss", "delta": 2.0}}
        assert "P3D517" in found(config, tmp_path / "a.yml")
