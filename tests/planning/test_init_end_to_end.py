"""Eight data sets from files of other programs to a scored prediction: no line of a config is written by hand."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from p3d_regression.checks.registry import select
from p3d_regression.checks.run import Report, check_file
from p3d_regression.cli.main import main
from support.checks import Silent
from support.datasets import AFFINE, DATASETS, SPACING
from support.preforked import Preforked


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output + result.stderr
    return result


def check(path: Path) -> Report:
    return check_file(str(path), [], select([], []), with_data=True, progress=Silent())


def geometry_of_nifti(directory: Path, prediction: Path) -> None:
    run("convert", prediction, directory / "back.nii.gz")
    image = nibabel.load(directory / "back.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE)
    np.testing.assert_allclose(image.header.get_zooms()[:3], (1.5, 1.5, 3.0))
    assert image.header.get_xyzt_units()[0] == "mm"
    with h5py.File(prediction) as file:
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, file["predictions"][0])


def geometry_of_zarr(directory: Path, prediction: Path) -> None:
    run("convert", prediction, directory / "back.ome.zarr")
    held = json.loads((directory / "back.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert held["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, *SPACING]
    assert [axis.get("unit") for axis in held["axes"]] == [None, *["micrometer"] * 3]


def geometry_of_imagej(directory: Path, prediction: Path) -> None:
    import tifffile

    run("convert", prediction, directory / "back.tif")
    with tifffile.TiffFile(directory / "back.tif") as file:
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["spacing"], file.imagej_metadata["unit"]) == (1.0, "um")


def from_its_checkpoint(directory: Path, prediction: Path) -> None:
    """The checkpoint alone gives a config that predicts the same."""
    best = directory / "out" / "checkpoints" / "best_checkpoint.pytorch"
    with h5py.File(prediction) as file:
        raw = Path(str(file["predictions"].attrs["raw"]))
    said = run("init", "predict", best, raw, "--out", directory / "again").stdout
    assert "1 volume, patches of [6, 64, 64] as in training" in said
    first, again = (yaml.safe_load((directory / name / "predict.yml").read_text()) for name in ("out", "again"))
    for config in (first, again):
        del config["loaders"]["output_dir"]
    del first["loaders"]["label_internal_path"]
    assert again == first
    assert check(directory / "again" / "predict.yml").findings == []


#: For each data set lines of its config that its values decide, and what to do with its prediction.
EXPECTED: dict[str, tuple[dict[str, object], Callable[[Path, Path], None] | None]] = {
    "TIFF denoising": ({"model.target_scaling": "residual"}, geometry_of_imagej),
    "counts with zeros": (
        {"model.final_activation": "softplus", "loaders.label_internal_path": "counts"},
        from_its_checkpoint,
    ),
    "NIfTI with affine": ({"model.final_activation": "softplus"}, geometry_of_nifti),
    "OME-Zarr with two channels": ({"loaders.dataset": "ZarrDataset", "model.in_channels": 2}, geometry_of_zarr),
    "one thin volume": ({"loaders.train.slice_builder.patch_shape": [12, 64, 64]}, None),
    "2D images": ({"model.name": "UNet2D"}, None),
    "labels with NaN": ({"loss.ignore_index": pytest.approx(np.nan, nan_ok=True)}, None),
    "mask and distance": ({"model.final_activation": ["sigmoid", "softplus"], "loss.name": "channelwise"}, None),
}


@pytest.mark.parametrize("name", DATASETS)
def test_from_files_to_a_scored_prediction(forked: Preforked, tmp_path: Path, name: str) -> None:
    paths = DATASETS[name](tmp_path)
    out = tmp_path / "out"
    said = run("init", "--yes", "--iterations", 20, "--out", out, *paths).stdout
    assert "check finds nothing against it" in said
    train, predict = out / "train.yml", out / "predict.yml"
    lines, back = EXPECTED[name]
    config = yaml.safe_load(train.read_text())
    for key, value in lines.items():
        part = config
        for section in key.split("."):
            part = part[section]
        assert part == value, key
    assert check(train).findings == []
    # less to compute, and nothing else
    quick = {"batch_size": 1, "num_workers": 0, "validate_after_iters": 20, "log_after_iters": 20}
    text = train.read_text()
    for key, value in quick.items():
        text, count = re.subn(rf"\b{key}: \d+", f"{key}: {value}", text)
        assert count == 1
    train.write_text(re.sub(r"f_maps: \[16, 32[^]]*\]", "f_maps: [8, 16]", text))
    trained = forked.run("train3dunet", "--config", train)
    assert trained.returncode == 0, trained.stderr
    assert check(predict).findings == []
    predicted = forked.run("predict3dunet", "--config", predict)
    assert predicted.returncode == 0, predicted.stderr
    scores = json.loads(CliRunner().invoke(main, ["evaluate", str(predict), "--json"]).stdout)
    errors, constant = scores["pooled"]["RMSE"], scores["baselines"]["best constant"]["RMSE"]
    assert np.all(np.less(errors, constant)), scores["verdict"]
    if back is not None:
        prediction = Path(scores["volumes"][0]["prediction"].rpartition(":")[0])
        back(tmp_path, prediction)
