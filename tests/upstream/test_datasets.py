"""The labels that the scan sees against those that upstream's own loaders hand to the loss."""

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from p3d_regression.checks.reading import look
from p3d_regression.checks.view import View
from p3d_regression.labels.scan import Statistics, scan
from p3d_regression.upstream.datasets import label_volumes
from support.checks import Silent, merged
from support.lab import training_config

SHAPE = (10, 70, 90)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files to train with, one to validate with; labels that are 0 in places, as FilterSliceBuilder looks at."""
    directory = tmp_path_factory.mktemp("volumes")
    for seed, name in enumerate(["train", "second", "val"]):
        rng = np.random.default_rng(seed)
        shape = SHAPE if name != "second" else (8, 64, 64)
        with h5py.File(directory / f"{name}.h5", "w") as file:
            label = rng.normal(3, 40, shape).astype(np.float32)
            label[:, 40:] = 0
            file["raw"] = rng.normal(100, 20, shape).astype(np.float32)
            file.create_dataset("label", data=label, chunks=(4, 32, 32), compression="gzip")
            file["two"] = np.stack([label, label**2])
            file["counts"] = rng.integers(0, 200, shape, dtype=np.uint8)
            file["one"] = label[None]
            file["two_raw"] = np.stack([file["raw"][()]] * 2)
    return directory


def config_of(data: Path, **loaders: Any) -> dict[str, Any]:
    config = training_config(data, {"name": "UNet3D"})
    for phase in ("train", "val"):
        config["loaders"][phase]["slice_builder"] |= {"patch_shape": [4, 64, 64], "stride_shape": [2, 3, 16]}
    return merged(config, {"loaders": loaders})


def label(*steps: dict[str, Any], **slice_builder: Any) -> dict[str, Any]:
    steps = steps or ({"name": "ToTensor", "expand_dims": True},)
    return {"transformer": {"label": list(steps)}, "slice_builder": slice_builder}


TO_TENSOR = {"name": "ToTensor", "expand_dims": True}
FILTER = {"name": "FilterSliceBuilder", "threshold": 0.5, "slack_acceptance": 0.2}

VARIANTS: dict[str, dict[str, Any]] = {
    "overlapping": {},
    "lazy": {"dataset": "LazyHDF5Dataset"},
    "not overlapping": {"train": label(stride_shape=[4, 64, 64])},
    "gaps": {"train": label(patch_shape=[2, 64, 64], stride_shape=[5, 70, 70])},
    "filtered": {"train": label(**FILTER)},
    "filtered, lazy": {"dataset": "LazyHDF5Dataset", "train": label(**FILTER)},
    "two channels": {"label_internal_path": "two"},
    "more channels than raw": {"raw_internal_path": "one", "label_internal_path": "two"},
    "fewer channels than raw": {"raw_internal_path": "two_raw", "label_internal_path": "one"},
    "cropped": {"train": label({"name": "CropToFixed", "size": [70, 20], "centered": True}, TO_TENSOR)},
    "two channels of raw": {"raw_internal_path": "two_raw"},
    "no channel axis": {"train": label({"name": "ToTensor", "expand_dims": False})},
    "counts": {"label_internal_path": "counts"},
    "integers": {"train": label({"name": "ToTensor", "expand_dims": True, "dtype": "int64"})},
    "scaled by numbers": {"train": label({"name": "Normalize", "min_value": -100, "max_value": 60}, TO_TENSOR)},
    "scaled patch by patch": {"train": label({"name": "Normalize"}, TO_TENSOR)},
    "standardised patch by patch": {"train": label({"name": "Standardize"}, TO_TENSOR)},
    "standardised by raw": {"global_normalization": True, "train": label({"name": "Standardize"}, TO_TENSOR)},
    "normalised by raw does not touch labels": {"global_normalization": True},
    "boundaries": {"label_internal_path": "counts", "train": label({"name": "StandardLabelToBoundary"}, TO_TENSOR)},
}


def upstreams_labels(loaders: dict[str, Any]) -> np.ndarray:
    """Of all patches, without augmentation; shape (N, C, D, H, W) or (N, D, H, W)."""
    from pytorch3dunet.datasets import hdf5

    cls = getattr(hdf5, loaders["dataset"])
    datasets = cls.create_datasets(copy.deepcopy(loaders), "train")
    return np.stack([np.asarray(labels) for dataset in datasets for _, labels in dataset])


@pytest.mark.parametrize("name", VARIANTS)
def test_same_labels_as_upstreams_loaders(data: Path, name: str) -> None:
    loaders = config_of(data, **VARIANTS[name])["loaders"]
    loaders["train"]["file_paths"].append(str(data / "second.h5"))
    theirs = upstreams_labels(loaders)
    before, ours = copy.deepcopy(loaders), Statistics()
    scan(label_volumes(loaders, "train"), [], ours, lambda voxels: None)
    assert loaders == before
    assert ours.has_channel_axis == (theirs.ndim == 5)
    channels = np.moveaxis(theirs, 1, 0) if theirs.ndim == 5 else theirs[None]
    assert len(ours.channels) == len(channels)
    for moments, values in zip(ours.channels, channels, strict=True):
        assert moments.count == values.size
        assert (moments.low, moments.high) == (values.min(), values.max())
        assert moments.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-6, abs=1e-6)
        assert moments.std == pytest.approx(values.std(dtype=np.float64), rel=1e-6)


def test_random_augmentation_is_left_out(data: Path) -> None:
    steps = [
        {"name": "RandomFlip"},
        {"name": "RandomRotate90"},
        {"name": "RandomRotate", "order": 3},
        {"name": "ElasticDeformation", "spline_order": 3, "execution_probability": 1.0},
        {"name": "RandomContrast", "execution_probability": 1.0},
        {"name": "AdditiveGaussianNoise", "execution_probability": 1.0},
        TO_TENSOR,
    ]
    plain, augmented = (
        config_of(data, train=label(*s), random_scale=r)["loaders"] for s, r in (((), None), (steps, 1))
    )
    found = [Statistics(), Statistics()]
    for loaders, statistics in zip((plain, augmented), found, strict=True):
        scan(label_volumes(loaders, "train"), [], statistics, lambda voxels: None)
    assert found[0].channels == found[1].channels


@pytest.mark.parametrize(("validate_iters", "patches"), [(None, 36), (0, 2), (3, 8), (1000, 36)])
def test_validation_may_end_early(data: Path, validate_iters: int | None, patches: int) -> None:
    config = config_of(data, batch_size=2)
    config["trainer"]["validate_iters"] = validate_iters
    view = View(config, "train")
    look(view, volumes=True, progress=Silent())
    theirs = upstreams_labels({**config["loaders"], "train": config["loaders"]["val"]})
    assert len(theirs) == 36
    statistics = view.phases["val"].statistics
    assert statistics.channels[0].count == theirs[:patches].size
    assert statistics.channels[0].mean == pytest.approx(theirs[:patches].mean(dtype=np.float64), rel=1e-6)


def test_the_volumes_are_not_loaded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the labels nor, with ``global_normalization``, the raw volume."""
    from pytorch3dunet.datasets import hdf5

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("upstream would read a whole volume")

    refuse.__module__ = hdf5.__name__  # as if it were upstream's own method
    monkeypatch.setattr(hdf5, "calculate_stats", lambda image, skip=False: refuse() if not skip else dict.fromkeys("x"))
    for method in ("get_raw_patch", "get_label_patch"):
        monkeypatch.setattr(hdf5.StandardHDF5Dataset, method, refuse)
    loaders = config_of(data, global_normalization=True)["loaders"]
    scan(label_volumes(loaders, "train"), [], Statistics(), lambda voxels: None)


def test_images_of_the_2d_dataset(tmp_path: Path) -> None:
    import imageio

    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 64, 64), dtype=np.uint8)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for index, image in enumerate(images):
            imageio.imwrite(tmp_path / kind / f"{index}.png", image)
    phase = {"file_paths": [str(tmp_path)], "transformer": {"raw": [TO_TENSOR], "label": [TO_TENSOR]}}
    found = Statistics()
    volumes = label_volumes({"dataset": "DSB2018Dataset", "train": phase}, "train")
    scan(volumes, [], found, lambda voxels: None)
    assert found.channels[0].count == images.size
    assert found.channels[0].mean == pytest.approx(images.mean())


def test_a_random_crop_is_taken_in_the_middle_and_pads_as_it_would(data: Path) -> None:
    def crop(**arguments: Any) -> dict[str, Any]:
        step = {"name": "CropToFixed", "size": [200, 20], **arguments}
        return config_of(data, train=label(step, TO_TENSOR))["loaders"]

    found = [Statistics(), Statistics()]
    for loaders, statistics in zip((crop(), crop(centered=True)), found, strict=True):
        scan(label_volumes(loaders, "train"), [], statistics, lambda voxels: None)
    assert found[0].channels == found[1].channels
    assert found[0].channels[0].count == 36 * 4 * 200 * 20


def test_half_precision_labels_standardised_by_raw(data: Path) -> None:
    """numpy computes in the type of the statistics."""
    loaders = config_of(data, global_normalization=True, train=label({"name": "Standardize"}, TO_TENSOR))["loaders"]
    with h5py.File(data / "half.h5", "w") as file, h5py.File(data / "train.h5") as other:
        file["raw"], file["label"] = other["raw"][()], other["label"][()].astype(np.float16)
    loaders["train"]["file_paths"] = [str(data / "half.h5")]
    theirs, ours = upstreams_labels(loaders), Statistics()
    scan(label_volumes(loaders, "train"), [], ours, lambda voxels: None)
    assert ours.channels[0].high == pytest.approx(theirs.max(), rel=1e-6)
    assert ours.channels[0].mean == pytest.approx(theirs.mean(dtype=np.float64), rel=1e-5)


def test_a_dataset_class_with_labels_of_its_own_is_asked_for_them(data: Path, monkeypatch) -> None:
    from pytorch3dunet.datasets import hdf5

    class Doubled(hdf5.StandardHDF5Dataset):
        def get_label_patch(self, idx):
            return 2 * super().get_label_patch(idx)

    loaders = config_of(data)["loaders"]
    plain, doubled = Statistics(), Statistics()
    scan(label_volumes(loaders, "train"), [], plain, lambda voxels: None)
    monkeypatch.setattr(hdf5, "Doubled", Doubled, raising=False)
    scan(label_volumes({**loaders, "dataset": "Doubled"}, "train"), [], doubled, lambda voxels: None)
    assert doubled.channels[0].mean == pytest.approx(2 * plain.channels[0].mean)


def test_many_files_are_not_open_at_once(data: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    for index in range(60):
        (tmp_path / f"{index}.h5").symlink_to(data / "train.h5")
    loaders = config_of(data)["loaders"]
    loaders["train"]["file_paths"] = [str(tmp_path)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, hard))
    try:
        found = Statistics()
        scan(label_volumes(loaders, "train"), [], found, lambda voxels: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.channels[0].count == 60 * 36 * 4 * 64 * 64
