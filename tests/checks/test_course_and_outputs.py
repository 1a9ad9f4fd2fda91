"""The course of a training and the outputs of a prediction, known before they run."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from p3d_regression.checks.at_start import check_at_start
from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import prediction_config, training_config, write_config, write_volumes

MODEL = {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patches in train.h5 and two in val.h5."""
    directory = tmp_path_factory.mktemp("course")
    write_volumes(directory)
    return directory


def found(config: dict[str, Any], path: Path, *codes: str, with_data: bool = True) -> dict[str, Any]:
    report = check_file(str(write_config(path, config)), [], rules(), with_data=with_data, progress=Silent())
    assert report.failures == []
    return {finding.rule.code: finding.found for finding in report.findings if finding.rule.code in codes}


class TestScheduler:
    @pytest.mark.parametrize(
        ("section", "key", "value"),
        [
            ({"name": "StepLR", "step_size": "2"}, "step_size", 2),
            ({"name": "StepLR", "step_size": 1, "gamma": "1e-1"}, "gamma", 0.1),
            ({"name": "MultiStepLR", "milestones": ["1", 2]}, "milestones", [1, 2]),
            ({"name": "ReduceLROnPlateau", "mode": "min", "patience": "10"}, "patience", 10),
            ({"name": "ReduceLROnPlateau", "mode": "min", "min_lr": "1e-6"}, "min_lr", 1e-6),
            ({"name": "CosineAnnealingLR", "T_max": "4"}, "T_max", 4),
            ({"name": "ExponentialLR", "gamma": "1e-1"}, "gamma", 0.1),
        ],
    )
    def test_texts(self, data: Path, tmp_path: Path, section: dict[str, Any], key: str, value: Any) -> None:
        config = training_config(data, MODEL) | {"lr_scheduler": section}
        (change,) = found(config, tmp_path / "a.yml", "P3D230", with_data=False)["P3D230"].fix.changes
        assert (change.key, change.value) == (f"lr_scheduler.{key}", value)

    @pytest.mark.parametrize(
        "section",
        [
            {"name": "ReduceLROnPlateau", "mode": "min", "patience": [None]},
            {"name": "OneCycleLR", "max_lr": 0.01, "total_steps": 1},
            {"name": "StepLR", "step_size": 0},
        ],
    )
    def test_fails_when_it_steps(self, data: Path, tmp_path: Path, section: dict[str, Any]) -> None:
        config = training_config(data, MODEL, iterations=8) | {"lr_scheduler": section}
        config["trainer"]["validate_after_iters"] = 2
        finding = found(config, tmp_path / "a.yml", "P3D230")["P3D230"]
        fixed = finding.fix.applied_to(config)
        assert found(fixed, tmp_path / "b.yml", "P3D230", "P3D212") == {}

    @pytest.mark.parametrize(
        ("section", "value"),
        [
            ({"name": "MultiStepLR", "milestones": [400, 800]}, [4, 8]),
            ({"name": "StepLR", "step_size": 500}, 5),
            ({"name": "MultiStepLR", "milestones": [10**6]}, [5]),
        ],
    )
    def test_counts_iterations(self, data: Path, tmp_path: Path, section: dict[str, Any], value: Any) -> None:
        config = training_config(data, MODEL, iterations=1000) | {"lr_scheduler": section}
        config["trainer"] |= {"validate_after_iters": 100, "max_num_epochs": 10**6}
        (change,) = found(config, tmp_path / "a.yml", "P3D232")["P3D232"].fix.changes
        assert change.value == value
        assert (
            found(merged(config, {"lr_scheduler": {change.key.partition(".")[2]: value}}), tmp_path / "b.yml", "P3D232")
            == {}
        )

    def test_takes_the_rate_away(self, data: Path, tmp_path: Path) -> None:
        config = training_config(data, MODEL, iterations=1000) | {
            "lr_scheduler": {"name": "ExponentialLR", "gamma": 0.01}
        }
        config["trainer"] |= {"validate_after_iters": 10, "max_num_epochs": 10**6}
        assert "P3D232" in found(config, tmp_path / "a.yml", "P3D232")

    @pytest.mark.parametrize(
        "section",
        [
            {"name": "StepLR", "step_size": 3, "gamma": 0.5},
            {"name": "ReduceLROnPlateau", "mode": "min", "factor": 0.5, "patience": 100},
            {"name": "CosineAnnealingLR", "T_max": 10},
            {"name": "ConstantLR", "factor": 1.0},
            {"name": "LinearLR", "total_iters": 4},
        ],
    )
    def test_no_false_alarm(self, data: Path, tmp_path: Path, section: dict[str, Any]) -> None:
        config = training_config(data, MODEL, iterations=1000) | {"lr_scheduler": section}
        config["trainer"] |= {"validate_after_iters": 100, "max_num_epochs": 10**6}
        assert found(config, tmp_path / "a.yml", "P3D230", "P3D232", "P3D212") == {}


class TestNoCheckpoint:
    @pytest.mark.parametrize(
        ("trainer", "is_found"),
        [
            ({"max_num_iterations": 3, "validate_after_iters": 1000}, True),
            ({"max_num_iterations": 10**5, "max_num_epochs": 3, "validate_after_iters": 50}, True),
            ({"max_num_iterations": 0, "validate_after_iters": 1}, True),
            ({"max_num_epochs": 0, "validate_after_iters": 1}, True),
            # the trainer stops after one iteration more
            ({"max_num_iterations": 3, "validate_after_iters": 4}, False),
            ({"max_num_iterations": 10**5, "max_num_epochs": 25, "validate_after_iters": 50}, False),
        ],
    )
    def test_is_found(self, data: Path, tmp_path: Path, trainer: dict[str, Any], is_found: bool) -> None:
        config = merged(training_config(data, MODEL), {"trainer": trainer})
        finding = found(config, tmp_path / "a.yml", "P3D231")
        assert bool(finding) == is_found
        if is_found:
            fixed = finding["P3D231"].fix.applied_to(config)
            assert found(fixed, tmp_path / "b.yml", "P3D231") == {} or 0 in trainer.values()

    def test_the_training_goes_on(self, data: Path) -> None:
        """Somebody may only want to see that it runs."""
        config = merged(training_config(data, MODEL), {"trainer": {"validate_after_iters": 1000}})
        check_at_start(config, "train")


class TestOutputs:
    def predicting(self, data: Path, tmp_path: Path, *names: str) -> dict[str, Any]:
        config = prediction_config(data, {"name": "UNet3D", "final_activation": "none"})
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((data / "val.h5").read_bytes())
        config["loaders"] |= {"output_dir": str(tmp_path / "out")}
        config["loaders"]["test"]["file_paths"] = [str(path) for path in paths]
        return config

    @pytest.mark.parametrize(
        ("names", "is_found"),
        [
            (("a/volume.h5", "b/volume.h5"), True),
            (("a/volume.h5", "a/volume.hdf5"), True),
            (("a/volume.h5", "b/other.h5"), False),
        ],
    )
    def test_one_output_for_two(self, data: Path, tmp_path: Path, names: tuple[str, ...], is_found: bool) -> None:
        config = self.predicting(data, tmp_path, *names)
        finding = found(config, tmp_path / "p.yml", "P3D620")
        assert bool(finding) == is_found
        if names[1] == "b/volume.h5":
            fixed = finding["P3D620"].fix.applied_to(config)
            assert found(fixed, tmp_path / "q.yml", "P3D620") == {}

    def test_directories_are_looked_into(self, data: Path, tmp_path: Path) -> None:
        config = self.predicting(data, tmp_path, "a/volume.h5", "b/volume.h5")
        config["loaders"]["test"]["file_paths"] = [str(tmp_path / "a"), str(tmp_path / "b")]
        assert "P3D620" in found(config, tmp_path / "p.yml", "P3D620")

    @pytest.mark.parametrize("below", ["", "/deeper/still"])
    def test_a_file_in_the_way(self, data: Path, tmp_path: Path, below: str) -> None:
        (tmp_path / "taken").write_text("")
        config = self.predicting(data, tmp_path, "a/volume.h5")
        config["loaders"]["output_dir"] = f"{tmp_path / 'taken'}{below}"
        assert "P3D621" in found(config, tmp_path / "p.yml", "P3D621")
        train = merged(training_config(data, MODEL), {"trainer": {"checkpoint_dir": f"{tmp_path / 'taken'}{below}"}})
        assert "P3D621" in found(train, tmp_path / "t.yml", "P3D621")

    @pytest.mark.parametrize(
        ("predictor", "key"),
        [
            ({"name": "DSB2018Predictor"}, "predictor.name"),
            ({"name": "DSB2018Predictor", "save_segmentation": False}, "predictor.name"),
        ],
    )
    def test_a_predictor_that_cannot_be_built(self, data, tmp_path: Path, predictor: dict[str, Any], key: str) -> None:
        config = self.predicting(data, tmp_path, "a/volume.h5") | {"predictor": predictor}
        finding = found(config, tmp_path / "p.yml", "P3D622")["P3D622"]
        assert finding.key == key
        assert not (tmp_path / "out").exists()

    def test_the_padding_of_another_volume(self, data: Path, tmp_path: Path) -> None:
        config = self.predicting(data, tmp_path, "a/volume.h5")
        config["loaders"]["dataset"] = "LazyHDF5Dataset"
        config["loaders"]["test"]["slice_builder"]["halo_shape"] = [0, 8, 8]
        with h5py.File(tmp_path / "a" / "volume.h5", "a") as file:
            raw = file["raw"][()]
            file["other"] = raw[::-1]
            file["raw_padded"] = np.pad(raw, [(0, 0), (8, 8), (8, 8)], mode="reflect")
        assert found(config, tmp_path / "p.yml", "P3D606") == {}
        config["loaders"]["raw_internal_path"] = "other"
        assert "is not that of other" in found(config, tmp_path / "q.yml", "P3D606")["P3D606"].message
