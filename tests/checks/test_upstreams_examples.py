"""Configs of the kinds that upstream's documentation shows, on data of their kind: no false alarm.

Each is trained once by upstream itself, so that they stay what upstream accepts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import imageio.v2 as imageio
import numpy as np
import pytest

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.environments import Environment
from support.lab import write_config
from support.preforked import Preforked

FLIPS = [
    {"name": "RandomFlip"},
    {"name": "RandomRotate90"},
    {"name": "RandomRotate", "axes": [[2, 1]], "angle_spectrum": 30, "mode": "reflect"},
]
NOISE = [
    {"name": "GaussianBlur3D", "execution_probability": 0.5},
    {"name": "AdditiveGaussianNoise", "execution_probability": 0.2},
    {"name": "AdditivePoissonNoise", "execution_probability": 0.2},
]
EXPANDED, AS_IT_IS, CLASSES = (
    {"name": "ToTensor", "expand_dims": True},
    {"name": "ToTensor", "expand_dims": False},
    {"name": "ToTensor", "expand_dims": False, "dtype": "int64"},
)
CROP = {"name": "CropToFixed", "size": [64, 64]}
FILTERED = {"name": "FilterSliceBuilder", "threshold": 0.01, "slack_acceptance": 0.01}


def elastic(order: int) -> dict[str, Any]:
    return {"name": "ElasticDeformation", "spline_order": order, "alpha": 20, "sigma": 5}


def phase(data: Path, folder: str, raw: list[Any], label: list[Any], **slice_builder: Any) -> dict[str, Any]:
    shape = {"name": "SliceBuilder", "patch_shape": [8, 64, 64], "stride_shape": [8, 32, 32]}
    return {
        "file_paths": [str(data / folder)],
        "slice_builder": shape | slice_builder,
        "transformer": {"raw": raw, "label": label},
    }


def config(
    data: Path, model: dict[str, Any], train: dict[str, Any], val: dict[str, Any], **sections: Any
) -> dict[str, Any]:
    base = {
        "device": "cpu",
        "model": {
            "name": "UNet3D",
            "in_channels": 1,
            "out_channels": 1,
            "layer_order": "gcr",
            "f_maps": [8, 16],
            "num_groups": 8,
        }
        | model,
        "trainer": {
            "checkpoint_dir": str(data / "checkpoints"),
            "resume": None,
            "pre_trained": None,
            "validate_after_iters": 1,
            "log_after_iters": 1,
            "max_num_epochs": 1,
            "max_num_iterations": 1,
            "eval_score_higher_is_better": True,
        },
        "optimizer": {"learning_rate": 0.0002, "weight_decay": 0.00001},
        "lr_scheduler": {"name": "ReduceLROnPlateau", "mode": "max", "factor": 0.2, "patience": 8},
        "loaders": {
            "dataset": "StandardHDF5Dataset",
            "batch_size": 1,
            "num_workers": 0,
            "raw_internal_path": "raw",
            "label_internal_path": "label",
            "train": train,
            "val": val,
        },
    }
    return merged(base, sections)


def boundaries(data: Path) -> dict[str, Any]:
    """3D, boundaries between cells: the error of a segmentation as metric."""
    to_boundary = {"name": "StandardLabelToBoundary", "append_label": True}
    label = [*FLIPS, elastic(0), to_boundary, AS_IT_IS]
    train = phase(data, "train", [{"name": "Standardize"}, *FLIPS, elastic(3), *NOISE, EXPANDED], label, **FILTERED)
    val = phase(data, "val", [{"name": "Standardize"}, EXPANDED], [to_boundary, AS_IT_IS], **FILTERED)
    skip = {"skip_last_target": True}
    return config(
        data,
        {"name": "ResidualUNet3D", "f_maps": [8, 16], "final_sigmoid": True},
        train,
        val,
        loss={"name": "BCEDiceLoss", "ignore_index": None, **skip},
        eval_metric={
            "name": "BoundaryAdaptedRandError",
            "threshold": 0.4,
            "use_last_target": True,
            "use_first_input": True,
        },
        lr_scheduler={"mode": "min"},
        trainer={"eval_score_higher_is_better": False, "tensorboard_formatter": skip},
        loaders={"random_scale": 4, "random_scale_probability": 0.1, "global_normalization": True},
    )


def nuclei(data: Path) -> dict[str, Any]:
    """3D, foreground."""
    to_mask = {"name": "BlobsToMask", "append_label": True, "boundary": False}
    raw, label = [{"name": "Standardize"}, *FLIPS, elastic(3), EXPANDED], [*FLIPS, elastic(0), to_mask, AS_IT_IS]
    return config(
        data,
        {"final_sigmoid": True, "is_segmentation": True},
        phase(data, "train", raw, label, **FILTERED),
        phase(data, "val", [{"name": "Standardize"}, EXPANDED], [to_mask, AS_IT_IS], **FILTERED),
        loss={"name": "BCEWithLogitsLoss", "skip_last_target": True},
        eval_metric={"name": "BlobsAveragePrecision", "thresholds": [0.4, 0.5, 0.6, 0.7, 0.8], "metric": "ap"},
        trainer={"tensorboard_formatter": {"skip_last_target": True}},
    )


def multiclass(data: Path) -> dict[str, Any]:
    """3D, three classes."""
    raw, label = [{"name": "Standardize"}, *FLIPS, elastic(3), EXPANDED], [*FLIPS, elastic(0), CLASSES]
    return config(
        data,
        {"out_channels": 3, "final_sigmoid": False, "is_segmentation": True},
        phase(data, "train", raw, label, **FILTERED),
        phase(data, "val", [{"name": "Standardize"}, EXPANDED], [CLASSES], **FILTERED),
        loss={"name": "CrossEntropyLoss", "weight": [0.2, 1.0, 1.0]},
        eval_metric={"name": "MeanIoU", "ignore_index": None},
    )


def images(data: Path) -> dict[str, Any]:
    """2D, pictures and masks."""
    to_mask = [{"name": "Relabel"}, {"name": "BlobsToMask", "append_label": True}]
    raw, label = [CROP, {"name": "Standardize"}, *FLIPS, *NOISE, EXPANDED], [CROP, *FLIPS, *to_mask, EXPANDED]
    centred = CROP | {"centered": True}
    train = phase(data, "pictures/train", raw, label)
    val = phase(data, "pictures/val", [centred, {"name": "Standardize"}, EXPANDED], [centred, *to_mask, EXPANDED])
    del train["slice_builder"], val["slice_builder"]
    return config(
        data,
        {"name": "UNet2D", "layer_order": "bcr", "final_sigmoid": True, "is_segmentation": True},
        train,
        val,
        loss={"name": "BCEDiceLoss", "skip_last_target": True},
        eval_metric={"name": "BlobsAveragePrecision", "use_last_target": True, "metric": "ap"},
        loaders={"dataset": "DSB2018Dataset", "batch_size": 2},
        trainer={"tensorboard_formatter": {"skip_last_target": True}},
    )


def flat(data: Path) -> dict[str, Any]:
    """2D slices of a volume, with a network for them."""
    made = boundaries(data)
    for name in ("train", "val"):
        made["loaders"][name]["slice_builder"] |= {"patch_shape": [1, 64, 64], "stride_shape": [1, 64, 64]}
    made["model"]["name"] = "UNet2D"
    del made["loaders"]["random_scale"]
    return made


def denoising(data: Path) -> dict[str, Any]:
    """3D regression: noisy volumes, scaled to -1..1 patch by patch like their labels."""
    normalize = {"name": "Normalize"}
    return config(
        data,
        {"is_segmentation": False},
        phase(data, "train", [normalize, *FLIPS, EXPANDED], [normalize, *FLIPS, EXPANDED]),
        phase(data, "val", [normalize, EXPANDED], [normalize, EXPANDED]),
        loss={"name": "SmoothL1Loss", "ignore_index": None},
        eval_metric={"name": "PSNR", "ignore_index": None},
        loaders={"label_internal_path": "clean", "global_normalization": True},
    )


#: What there is to say of each: for denoising what its documentation does not mention, as warnings.
EXAMPLES = {
    boundaries: set(),
    nuclei: set(),
    multiclass: set(),
    images: set(),
    flat: set(),
    denoising: {"P3D303", "P3D306"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_data(tmp_path_factory.mktemp("examples"))


def write_example_data(directory: Path) -> Path:
    """Write volumes and pictures as the examples name them; return the directory."""
    rng = np.random.default_rng(0)
    for name in ("train", "val"):
        (directory / name).mkdir()
        label = (rng.random((3, 5, 5)) * 3).astype(np.int64).repeat(4, 0).repeat(16, 1).repeat(16, 2)
        clean = 100 * label + rng.normal(size=label.shape)
        with h5py.File(directory / name / "volume.h5", "w") as file:
            file["label"], file["clean"] = label, clean.astype(np.float32)
            file["raw"] = (clean + rng.normal(scale=40, size=label.shape)).astype(np.float32)
        for kind in ("images", "masks"):
            (directory / "pictures" / name / kind).mkdir(parents=True)
            for index in range(2):
                picture = (80 * label[index]).astype(np.uint8)
                imageio.imwrite(directory / "pictures" / name / kind / f"{index}.png", picture)
    return directory


@pytest.fixture(scope="module")
def bare_server(bare: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preforked]:
    with Preforked(bare, tmp_path_factory.mktemp("printed")) as server:
        yield server


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
class TestExamples:
    def test_upstream_trains_it(self, bare_server: Preforked, data: Path, tmp_path: Path, example: Any) -> None:
        path = write_config(tmp_path / "train.yml", example(data))
        result = bare_server.run("train3dunet", "--config", path)
        assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]

    def test_no_false_alarm(self, data: Path, tmp_path: Path, example: Any) -> None:
        path = write_config(tmp_path / "train.yml", example(data))
        report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
        assert report.failures == []
        assert {finding.rule.code for finding in report.findings} == EXAMPLES[example]
        assert report.exit_status == 0
        assert report.view is not None
        assert all(phase.statistics for phase in report.view.phases.values())

    def test_no_false_alarm_in_prediction(self, data: Path, tmp_path: Path, example: Any) -> None:
        trained = example(data)
        test = trained["loaders"]["val"]
        del test["transformer"]["label"]
        if "slice_builder" in test:
            test["slice_builder"] = test["slice_builder"] | {"name": "SliceBuilder", "halo_shape": [0, 16, 16]}
        predictor = "DSB2018Predictor" if example is images else "StandardPredictor"
        predicted = {
            "model_path": "PATH_TO_BEST_CHECKPOINT",
            "model": trained["model"],
            "predictor": {"name": predictor},
            "loaders": {"dataset": trained["loaders"]["dataset"], "output_dir": str(tmp_path), "test": test},
        }
        path = write_config(tmp_path / "test.yml", predicted)
        report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
        assert report.failures == []
        # it names no checkpoint; pytorch-3dunet cannot create this predictor; its patches overlap for nothing, or a
        # regression has seams where they do not
        expected = {"P3D601"} | ({"P3D622"} if example is images else {"P3D623", "P3D626"})
        assert {finding.rule.code for finding in report.findings} <= expected
