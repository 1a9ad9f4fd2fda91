"""``ZarrDataset`` against the HDF5 datasets of pytorch-3dunet: the same patches from the same volumes."""

import copy
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from pytorch3dunet.augment import transforms
from pytorch3dunet.datasets.utils import get_test_loaders, get_train_loaders

from p3d_regression.checks.reading import look
from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError
from p3d_regression.prediction.settings import settings_of
from support.checks import Silent, merged
from support.lab import training_config, write_config

SHAPE = (9, 70, 75)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same volumes in HDF5 and Zarr: two channels of whole numbers, and labels with NaN."""
    directory = tmp_path_factory.mktemp("volumes")
    for seed, name in enumerate(["train", "val"]):
        rng = np.random.default_rng(seed)
        volumes = {
            "raw": rng.integers(0, 4000, (2, *SHAPE)).astype(np.uint16),
            "label": rng.normal(3, 40, SHAPE).astype(np.float32),
        }
        volumes["label"][:2] = 0
        volumes["label"][-1, :9] = np.nan
        group = zarr.create_group(str(directory / f"{name}.zarr"))
        with h5py.File(directory / f"{name}.h5", "w") as file:
            for key, values in volumes.items():
                file[key] = values
                array = group.create_array(
                    key, shape=values.shape, chunks=(2, 4, 32, 32)[-values.ndim :], dtype=values.dtype
                )
                array[...] = values
    return directory


def config_of(data: Path, dataset: str, **loaders: Any) -> dict[str, Any]:
    suffix = "zarr" if dataset == "ZarrDataset" else "h5"
    config = training_config(data, {"name": "UNet3D", "in_channels": 2, "final_activation": "none"})
    config["loaders"] |= {"dataset": dataset, "batch_size": 1, "num_workers": 0}
    for phase in ("train", "val"):
        config["loaders"][phase]["file_paths"] = [str(data / f"{phase}.{suffix}")]
        config["loaders"][phase]["slice_builder"] |= {"patch_shape": [4, 64, 64], "stride_shape": [3, 4, 8]}
    config["loss"] = {"name": "MSELoss", "ignore_index": float("nan")}
    return merged(config, {"loaders": loaders})


def patches(config: dict[str, Any], phase: str) -> list[Any]:
    transforms.GLOBAL_RANDOM_STATE = np.random.RandomState(0)
    loaders = get_test_loaders(config) if phase == "test" else [get_train_loaders(config)[phase]]
    return [loader.dataset[index] for loader in loaders for index in range(len(loader.dataset))]


AUGMENTED = [{"name": "Standardize"}, {"name": "RandomFlip"}, {"name": "ToTensor", "expand_dims": True}]
FILTER = {"name": "FilterSliceBuilder", "threshold": 0.8, "slack_acceptance": 0.0}


@pytest.mark.parametrize(
    "loaders",
    [
        {},
        {"global_normalization": True, "train": {"transformer": {"raw": AUGMENTED, "label": AUGMENTED}}},
        {"train": {"slice_builder": FILTER}},
        {"random_scale": 2},
    ],
    ids=["plain", "statistics of the volume and augmentation", "filtered", "random scale"],
)
def test_the_patches_of_a_training(data: Path, loaders: dict[str, Any]) -> None:
    wanted, found = (
        patches(config_of(data, name, **copy.deepcopy(loaders)), "train")
        for name in ("StandardHDF5Dataset", "ZarrDataset")
    )
    assert len(found) == len(wanted) > 3
    for (raw, label), (own, own_label) in zip(wanted, found, strict=True):
        np.testing.assert_allclose(own, raw, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(own_label, label, rtol=1e-6, atol=1e-6)


def test_the_patches_of_a_prediction(data: Path) -> None:
    found = []
    for name in ("StandardHDF5Dataset", "ZarrDataset"):
        config = config_of(data, name)
        config["loaders"]["test"] = config["loaders"].pop("val")
        config["loaders"]["test"]["slice_builder"]["halo_shape"] = [2, 5, 7]
        found.append(patches(config, "test"))
    for (raw, place), (own, own_place) in zip(*found, strict=True):
        np.testing.assert_array_equal(own, raw)
        assert place == own_place


def test_labels_are_measured_alike(data: Path) -> None:
    seen = []
    for name in ("StandardHDF5Dataset", "ZarrDataset"):
        view = View(config_of(data, name), "train")
        look(view, volumes=True, progress=Silent())
        assert view.phases["train"].failure is None
        seen.append(view.phases["train"])
    one, other = (phase.statistics.channels[0] for phase in seen)
    assert (one.count, one.mean, one.finite) == pytest.approx((other.count, other.mean, other.finite))
    one, other = (phase.files[0].raw_moments for phase in seen)
    assert (one.mean, one.count) == pytest.approx((other.mean, other.count))


def check(path: Path, config: dict[str, Any]) -> list[Any]:
    found = check_file(str(write_config(path, config)), [], rules(), with_data=True, progress=Silent()).findings
    return [finding for finding in found if finding.is_error]


class TestErrors:
    def test_a_zarr_volume_for_an_hdf5_dataset(self, data: Path, tmp_path: Path) -> None:
        config = config_of(data, "ZarrDataset")
        config["loaders"]["dataset"] = "StandardHDF5Dataset"
        found = check(tmp_path / "t.yml", config)
        assert {finding.rule.code for finding in found} == {"P3D403"}
        assert "these are Zarr volumes" in found[0].message
        assert check(tmp_path / "t.yml", found[0].found.fix.applied_to(config)) == []

    def test_an_hdf5_file_for_the_zarr_dataset(self, data: Path, tmp_path: Path) -> None:
        config = config_of(data, "StandardHDF5Dataset")
        config["loaders"]["dataset"] = "ZarrDataset"
        found = check(tmp_path / "t.yml", config)
        assert "not a directory with Zarr arrays" in found[0].message
        assert check(tmp_path / "t.yml", found[0].found.fix.applied_to(config)) == []

    def test_an_array_that_is_not_there(self, data: Path, tmp_path: Path) -> None:
        config = config_of(data, "ZarrDataset", label_internal_path="labels")
        (found, *_) = check(tmp_path / "t.yml", config)
        assert found.rule.code == "P3D404"
        assert "its datasets are: label, raw" in found.message
        assert check(tmp_path / "t.yml", found.found.fix.applied_to(config)) == []

    def test_percentiles_of_a_volume_that_is_never_in_memory(self, data: Path) -> None:
        steps = [{"name": "PercentileNormalizer"}, {"name": "ToTensor", "expand_dims": True}]
        loaders = {"global_normalization": True, "train": {"transformer": {"raw": steps}}}
        with pytest.raises(ConfigError, match="would need the whole Zarr volume in memory"):
            patches(config_of(data, "ZarrDataset", **loaders), "train")

    def test_the_package_is_missing(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zarr", None)
        with pytest.raises(ConfigError, match='pip install "p3d-regression\\[zarr\\]"'):
            patches(config_of(data, "ZarrDataset"), "train")
        (found, *_) = check(tmp_path / "t.yml", config_of(data, "ZarrDataset"))
        assert 'pip install "p3d-regression[zarr]"' in found.message


def test_settings_know_a_volume_that_has_changed(data: Path) -> None:
    before = settings_of({}, data / "train.zarr", [])["raw_file"]
    group = zarr.open_group(str(data / "train.zarr"), mode="r+")
    # as a prediction into the same directory does
    group.create_array("other", shape=(1,), dtype="u1")
    assert settings_of({}, data / "train.zarr", [])["raw_file"] == before
    group["raw"].attrs["unit"] = "photons"
    assert settings_of({}, data / "train.zarr", [])["raw_file"] != before
