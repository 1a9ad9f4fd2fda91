"""What upstream alone makes of prediction configs, beside the rule that says so before."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from support.checks import merged
from support.traps import Trap, Traps


@pytest.fixture(scope="module")
def trained(traps: Traps) -> Trap:
    """Trained once, with `is_segmentation: false`."""
    trap = traps.new()
    run = trap.train({}).succeeded()
    assert run.found == set()
    return trap


@pytest.fixture
def trap(trained: Trap, tmp_path: Path) -> Trap:
    """A copy of it: upstream may write into the volumes."""
    shutil.copytree(trained.directory, tmp_path, dirs_exist_ok=True)
    return replace(trained, directory=tmp_path)


def predictions(trap: Trap) -> np.ndarray:
    with h5py.File(trap.directory / "predictions" / "val_predictions.h5") as file:
        return file["predictions"][()]


def datasets(trap: Trap) -> dict[str, tuple[int, ...]]:
    """Shapes of what the predicted file holds."""
    with h5py.File(trap.directory / "val.h5") as file:
        return {key: dataset.shape for key, dataset in file.items()}


def with_halo(*shape: int) -> dict[str, Any]:
    return {"loaders": {"test": {"slice_builder": {"halo_shape": list(shape)}}}}


def predicted_files(trap: Trap, *paths: str) -> dict[str, Any]:
    return {"loaders": {"test": {"file_paths": [str(trap.directory / path) for path in paths]}}}


_LAZY = {"loaders": {"dataset": "LazyHDF5Dataset"}}


class TestLastLayer:
    def test_without_a_trap_predictions_leave_the_unit_interval(self, trap: Trap) -> None:
        run = trap.predict({}).succeeded()
        assert predictions(trap).max() > 1
        assert run.found == set()

    def test_p3d602_without_the_line_predictions_are_squashed(self, trap: Trap) -> None:
        trap.predict({}).succeeded()
        values = predictions(trap)
        run = trap.predict({"model": {"is_segmentation": ...}}).succeeded()
        np.testing.assert_allclose(predictions(trap), 1 / (1 + np.exp(-values)), rtol=1e-5)
        assert predictions(trap).max() <= 1
        assert "WARNING" not in run.result.stdout.replace("WARNING ConfigLoader", "").replace("WARNING HDF5Dataset", "")
        assert "P3D602" in run.found

    @pytest.mark.parametrize(("path", "error"), [("missing", "OSError: "), ("text", "_pickle.UnpicklingError: ")])
    def test_p3d601_a_checkpoint_that_is_none(self, trap: Trap, path: str, error: str) -> None:
        (trap.directory / "text").write_text("no checkpoint\n" * 10)
        run = trap.predict({"model_path": str(trap.directory / path)})
        assert run.result.returncode != 0
        assert f"\n{error}" in run.result.stderr
        assert "P3D601" in run.found


class TestPredictor:
    def test_p3d603_segmentation_instead_of_values(self, trap: Trap) -> None:
        trap.predict({}).succeeded()
        values = predictions(trap)
        run = trap.predict({"predictor": {"save_segmentation": True}}).succeeded()
        classes = predictions(trap)
        assert classes.dtype == np.uint16
        np.testing.assert_array_equal(classes, values[0] > 0.5)
        assert run.found == {"P3D603"}

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            (
                {"performance_metric": "accuracy", "gt_internal_path": "label"},
                "AssertionError: Unsupported performance",
            ),
            ({"performance_metric": "dice"}, "AssertionError"),
            # the labels of a training that adds the channel axis in its transforms
            (
                {"performance_metric": "dice", "gt_internal_path": "label"},
                "AssertionError: Predictions and ground truth have different shapes",
            ),
        ],
        ids=["unknown", "nothing-to-compare-with", "shapes"],
    )
    def test_p3d604_the_metric_stops_it_after_the_inference(
        self, trap: Trap, options: dict[str, str], error: str
    ) -> None:
        run = trap.predict({"predictor": options}).failed_with(error)
        assert "Finished inference" in run.result.stdout
        assert predictions(trap).shape == (1, 4, 64, 64)
        assert run.found == {"P3D604"}

    def test_p3d607_an_unknown_predictor(self, trap: Trap) -> None:
        run = trap.predict({"predictor": {"name": "Standard"}})
        run.failed_with("AttributeError: module 'pytorch3dunet.unet3d.predictor' has no attribute 'Standard'")
        assert run.found == {"P3D607"}

    @pytest.mark.parametrize(
        ("options", "error"),
        [({"output_dir": "predictions"}, "TypeError"), ({"prediction_channel": 1}, "IndexError")],
        ids=["given twice", "no such channel"],
    )
    def test_p3d607_what_a_predictor_cannot_do(self, trap: Trap, options: dict[str, Any], error: str) -> None:
        assert trap.predict({"predictor": options}).failed_with(error).found == {"P3D607"}

    def test_p3d608_an_option_of_another_name_is_ignored(self, trap: Trap) -> None:
        run = trap.predict({"predictor": {"save_segmentations": True}}).succeeded()
        assert len(np.unique(predictions(trap))) > 2
        assert run.found == {"P3D608"}


class TestPatches:
    def test_p3d408_between_patches_nothing_is_predicted(self, trap: Trap) -> None:
        trap.edit("val", raw=lambda file: np.concatenate([file["raw"]] * 4))
        slices = {"patch_shape": [4, 64, 64], "stride_shape": [10, 64, 64], "halo_shape": [0, 0, 0]}
        run = trap.predict({"loaders": {"test": {"slice_builder": slices}}}).succeeded()
        spread = np.ptp(predictions(trap)[0].reshape(16, -1), axis=1)
        assert (spread[:4] > 0).all()
        assert (spread[4:10] == 0).all()
        assert run.found == {"P3D408"}


class TestFiles:
    def test_p3d403_nothing_is_predicted_for_a_directory_without_files(self, trap: Trap) -> None:
        (trap.directory / "empty").mkdir()
        run = trap.predict(predicted_files(trap, "empty")).succeeded()
        assert list((trap.directory / "predictions").iterdir()) == []
        assert "P3D403" in run.found

    def test_p3d403_the_second_file_is_missed_after_the_first_was_predicted(self, trap: Trap) -> None:
        run = trap.predict(predicted_files(trap, "val.h5", "missing.h5")).failed_with("FileNotFoundError: ")
        assert np.isfinite(predictions(trap)).all()
        assert "P3D403" in run.found

    def test_p3d404_a_dataset_that_is_not_there(self, trap: Trap) -> None:
        run = trap.predict({"loaders": {"raw_internal_path": "volume"}})
        run.failed_with('KeyError: "Unable to synchronously open object')
        assert "P3D404" in run.found

    def test_p3d406_a_patch_larger_than_the_volume(self, trap: Trap) -> None:
        run = trap.predict({"loaders": {"test": {"slice_builder": {"patch_shape": [4, 64, 128]}}}})
        run.failed_with("AssertionError: Sample size has to be bigger than the patch size")
        assert "P3D406" in run.found

    def test_p3d503_one_nan_in_the_raw_volume_is_nan_in_the_whole_patch(self, trap: Trap) -> None:
        def with_one_nan(file: dict[str, np.ndarray]) -> np.ndarray:
            file["raw"][0, 0, 40] = np.nan
            return file["raw"]

        trap.edit("val", raw=with_one_nan)
        run = trap.predict({}).succeeded()
        assert np.isnan(predictions(trap)).all()
        assert run.found == {"P3D503"}


class TestPadding:
    def test_p3d605_the_lazy_dataset_writes_into_the_input_file(self, trap: Trap) -> None:
        before = (trap.directory / "val.h5").read_bytes()
        trap.predict(with_halo(0, 8, 8)).succeeded()
        assert (trap.directory / "val.h5").read_bytes() == before
        standard = predictions(trap)
        run = trap.predict(merged(_LAZY, with_halo(0, 8, 8))).succeeded()
        assert datasets(trap) == {"label": (4, 64, 64), "raw": (4, 64, 64), "raw_padded": (4, 80, 80)}
        assert (trap.directory / "val.h5").stat().st_size > len(before)
        np.testing.assert_array_equal(predictions(trap), standard)
        assert run.found == {"P3D605"}

    def test_p3d606_with_a_smaller_halo_than_before_predictions_are_shifted(self, trap: Trap) -> None:
        trap.predict(with_halo(0, 4, 4)).succeeded()
        right = predictions(trap)
        trap.predict(merged(_LAZY, with_halo(0, 8, 8))).succeeded()
        run = trap.predict(merged(_LAZY, with_halo(0, 4, 4))).succeeded()
        shifted = predictions(trap)
        in_place = np.abs(shifted - right).mean()
        moved_back = np.abs(shifted[..., 4:, 4:] - right[..., :-4, :-4]).mean()
        assert in_place > 3 * moved_back
        assert run.found == {"P3D605", "P3D606"}

    def test_p3d606_with_a_larger_halo_it_stops(self, trap: Trap) -> None:
        trap.predict(merged(_LAZY, with_halo(0, 4, 4))).succeeded()
        run = trap.predict(merged(_LAZY, with_halo(0, 8, 8)))
        run.failed_with("ValueError: could not broadcast input array from shape (1,4,56,56) into shape (1,4,64,64)")
        assert run.found == {"P3D605", "P3D606"}

    def test_p3d606_the_standard_dataset_does_not_look_at_it(self, trap: Trap) -> None:
        trap.predict(with_halo(0, 4, 4)).succeeded()
        right = predictions(trap)
        trap.predict(merged(_LAZY, with_halo(0, 8, 8))).succeeded()
        run = trap.predict(with_halo(0, 4, 4)).succeeded()
        np.testing.assert_array_equal(predictions(trap), right)
        assert run.found == set()

    def test_p3d606_a_raw_volume_that_was_replaced_is_not_looked_at(self, trap: Trap) -> None:
        lazy = merged(_LAZY, with_halo(0, 8, 8))
        trap.predict(lazy).succeeded()
        first = predictions(trap)
        trap.edit("val", raw=lambda file: file["raw"][:, ::-1])
        run = trap.predict(lazy).succeeded()
        np.testing.assert_array_equal(predictions(trap), first)
        assert run.found == {"P3D605", "P3D606"}
