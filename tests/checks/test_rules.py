"""Every rule, with the two configs of its own documentation: it finds the one and not the other."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from p3d_regression.checks import docs
from p3d_regression.checks.registry import rules
from p3d_regression.checks.rule import Rule
from p3d_regression.checks.run import check_file
from support.checks import Silent, merged
from support.lab import prediction_config, training_config, write_config
from support.rules import OWN, write_example, write_rule_data

#: A model that nothing is found in, for the labels of these tests.
SCALED = {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rule_data(tmp_path_factory.mktemp("rules"))


def codes(config: Mapping[str, Any], directory: Path) -> set[str]:
    return found_in(write_config(directory / "config.yml", config))


def found_in(path: Path) -> set[str]:
    report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
    assert report.failures == []
    return {finding.rule.code for finding in report.findings}


@pytest.mark.parametrize("rule", OWN, ids=lambda rule: rule.code)
class TestEveryRule:
    def test_does_not_find_its_good_example(self, rule: Rule, data: Path, tmp_path: Path) -> None:
        path = write_example(rule, rule.good, data, tmp_path / "config.yml")
        report = check_file(str(path), [], [rule], with_data=True, progress=Silent())
        assert (report.findings, report.failures) == ([], [])

    def test_finds_its_bad_example_and_says_where_what_and_how(self, rule: Rule, data: Path, tmp_path: Path) -> None:
        path = write_example(rule, rule.bad, data, tmp_path / "config.yml")
        report = check_file(str(path), [], [rule], with_data=True, progress=Silent())
        assert report.findings
        assert report.failures == []
        for finding in report.findings:
            found = finding.as_dict()
            assert found.keys() == {"code", "name", "severity", "key", "message", "fix", "changes"}
            assert re.fullmatch(r"[a-z_0-9.]+(\[\d+\][a-z_.]*)?", found["key"], re.IGNORECASE)
            assert found["message"]
            assert "\n" not in found["message"]
            assert "\n" not in str(finding)

    def test_is_explained(self, rule: Rule) -> None:
        assert len(rule.why) > 60
        assert rule.bad != rule.good
        assert docs.explain(rule).startswith(f"### {rule.code} {rule.name}\n")


def test_codes_and_names_are_unique() -> None:
    assert len({rule.code for rule in OWN}) == len({rule.name for rule in OWN}) == len(OWN)
    assert [rule.code for rule in OWN] == sorted(rule.code for rule in OWN)


@pytest.mark.parametrize("mode", ["train", "predict"])
def test_a_good_config_gives_no_finding(mode: str, data: Path, tmp_path: Path) -> None:
    model = {"name": "UNet3D", "final_activation": "none"}
    if mode == "train":
        config = training_config(data, model | {"target_scaling": "standardize"})
    else:
        config = prediction_config(data, model)
    config["model_path"] = str(data / "trained_with_none.pytorch")
    assert codes(config, tmp_path) == set()


def test_the_config_stays_as_it_is(data: Path) -> None:
    from p3d_regression.checks.run import check_config

    config = training_config(data, {"name": "UNet3D"}) | {"lr_scheduler": {"name": "StepLR", "step_size": 3}}
    before = copy.deepcopy(config)
    check_config(config, "train", rules())
    assert config == before


@pytest.mark.parametrize(
    ("train", "val", "overlap"),
    [
        ("exp", "exp/val", False),
        ("exp/train", "exp", False),
        ("exp/a.h5", "exp", True),
        ("exp", "exp/a.hdf5", True),
        ("exp", "exp/a.txt", False),
        ("exp", "exp", True),
        ("exp", "exp/../exp", True),
        ("a.h5", "b.h5", False),
    ],
)
def test_only_what_upstream_finds_in_a_directory_overlaps(train: str, val: str, overlap: bool, tmp_path: Path) -> None:
    paths = {phase: {"file_paths": [str(tmp_path / path)]} for phase, path in (("train", train), ("val", val))}
    config = merged(training_config(tmp_path, {"name": "UNet3D"}), {"loaders": paths})
    assert ("P3D402" in codes(config, tmp_path)) == overlap


def test_a_fix_does_not_contradict_itself(data: Path, tmp_path: Path) -> None:
    """What is pasted in place of ``final_sigmoid: false`` leaves no other finding about the last layer."""
    config = training_config(data, {"name": "UNet3D", "final_sigmoid": False})
    assert {"P3D101", "P3D106", "P3D501"} <= codes(config, tmp_path)
    del config["model"]["final_sigmoid"]
    config["model"]["final_activation"] = "none"
    assert codes(config, tmp_path) == {"P3D704"}
    config["model"]["target_scaling"] = "standardize"
    assert codes(config, tmp_path) == set()


@pytest.mark.parametrize(
    ("stored", "dtype", "found"),
    [
        ("counts", "int64", False),
        ("whole", "int64", False),
        ("whole", "uint8", False),
        ("label", "int64", True),
        ("large", "int64", False),
        ("large", "uint8", True),
        ("whole", "bool", True),
        ("whole_with_nan", "int64", False),
    ],
)
def test_labels_that_the_type_can_hold_may_be_cast(
    stored: str, dtype: str, found: bool, data: Path, tmp_path: Path
) -> None:
    for name in ("train", "val"):
        with h5py.File(data / f"{name}.h5", "a") as file:
            whole = np.abs(file["label"][()]).astype(int)
            for key, values in {
                "counts": whole.astype(np.uint8),
                "whole": whole.astype(np.float32),
                "large": 100 * whole,
                "whole_with_nan": np.where(whole > 20, np.nan, whole),
            }.items():
                if key not in file:
                    file[key] = values
    cast = [{"name": "ToTensor", "expand_dims": True, "dtype": dtype}]
    config = training_config(data, {"name": "UNet3D", "final_activation": "none"})
    config["loaders"] |= {"label_internal_path": stored}
    for phase in ("train", "val"):
        config["loaders"][phase]["transformer"]["label"] = cast
    assert ("P3D307" in codes(config, tmp_path)) == found


class TestNoFalseAlarm:
    """Configs that upstream trains or predicts with, however odd."""

    def train(self, data: Path, directory: Path, changes: dict[str, Any]) -> set[str]:
        return codes(merged(training_config(data, SCALED), changes), directory)

    def predict(self, data: Path, directory: Path, changes: dict[str, Any]) -> set[str]:
        config = prediction_config(data, {"name": "UNet3D", "final_activation": "none"})
        return codes(merged(config | {"model_path": str(data / "trained_with_none.pytorch")}, changes), directory)

    def test_squeeze_channel_alone_is_not_looked_at(self, data: Path, tmp_path: Path) -> None:
        assert self.train(data, tmp_path, {"loss": {"squeeze_channel": True}}) == {"P3D205"}

    def test_a_transform_that_never_runs(self, data: Path, tmp_path: Path) -> None:
        contrast = {"name": "RandomContrast", "execution_probability": 0.0}
        raw = [contrast, {"name": "ToTensor", "expand_dims": True}]
        assert self.train(data, tmp_path, {"loaders": {"train": {"transformer": {"raw": raw}}}}) == set()

    def test_arrays_become_tensors_where_they_are_collated(self, data: Path, tmp_path: Path) -> None:
        for name in ("train", "val"):
            with h5py.File(data / f"{name}.h5", "a") as file:
                for key in ("raw", "label"):
                    if f"four_{key}" not in file:
                        file[f"four_{key}"] = file[key][()][None]
        transformer = {"raw": [{"name": "Standardize"}], "label": []}
        loaders = {name: {"transformer": transformer} for name in ("train", "val")}
        loaders |= {"raw_internal_path": "four_raw", "label_internal_path": "four_label"}
        assert self.train(data, tmp_path, {"loaders": loaders}) == set()

    @pytest.mark.parametrize(
        "predictor",
        [
            {"name": "LazyPredictor"},
            {"prediction_channel": 0, "output_dataset": "distance", "save_segmentation": False},
            {"name": "StandardPredictor", "gt_internal_path": "label"},
        ],
        ids=str,
    )
    def test_options_of_predictors(self, data: Path, tmp_path: Path, predictor: dict[str, Any]) -> None:
        assert self.predict(data, tmp_path, {"predictor": predictor}) == set()

    def test_a_leftover_option_is_a_warning(self, data: Path, tmp_path: Path) -> None:
        assert self.predict(data, tmp_path, {"predictor": {"avoid_block_artifacts": True}}) == {"P3D608"}
        (rule,) = [rule for rule in OWN if rule.code == "P3D608"]
        assert rule.severity == "warning"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"predictor": None}, "P3D201"),
        ({"predictor": {"output_dir": "predictions"}}, "P3D607"),
        ({"predictor": {"prediction_channel": 1}}, "P3D607"),
        ({"predictor": {"name": "AbstractPredictor"}}, "P3D607"),
        ({"loaders": {"test": {"slice_builder": {"halo_shape": [8]}}}}, "P3D406"),
        ({"loaders": {"test": {"slice_builder": {"halo_shape": [-1, 8, 8]}}}}, "P3D406"),
    ],
    ids=str,
)
def test_a_prediction_that_cannot_run(changes: dict[str, Any], code: str, data: Path, tmp_path: Path) -> None:
    config = prediction_config(data, {"name": "UNet3D", "final_activation": "none"})
    assert code in codes(merged(config, changes), tmp_path)


@pytest.mark.parametrize(
    ("patch", "stride", "blend", "axes", "overlapping"),
    [
        ([4, 64, 64], [4, 64, 64], "gaussian", "X", [4, 64, 32]),
        ([2, 64, 64], [2, 64, 32], "mean", "Z", [1, 64, 32]),
        ([2, 64, 64], [2, 64, 64], None, "Z and X", [1, 64, 32]),
        ([2, 64, 64], [1, 64, 32], "gaussian", "", None),
        # planes of a 2D network cannot overlap
        ([1, 64, 64], [1, 64, 32], "gaussian", "", None),
    ],
)
def test_seams_along_each_axis(
    patch: list[int],
    stride: list[int],
    blend: str | None,
    axes: str,
    overlapping: list[int] | None,
    data: Path,
    tmp_path: Path,
) -> None:
    config = prediction_config(data, {"name": "UNet3D", "final_activation": "none"})
    config["predictor"] |= {"blend": blend} if blend else {}
    config["loaders"]["test"] |= {
        "file_paths": [str(data / "train.h5")],  # (4, 64, 96)
        "slice_builder": {"name": "SliceBuilder", "patch_shape": patch, "stride_shape": stride},
    }
    path = write_config(tmp_path / "predict.yml", config)
    report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
    found = [finding.found for finding in report.findings if finding.rule.code == "P3D626"]
    assert len(found) == bool(axes)
    for each in found:
        assert f"do not overlap along {axes}: " in each.message
        assert ("blending cannot remove" in each.message) == (blend is not None)
        mended = each.fix.applied_to(config)
        assert mended["loaders"]["test"]["slice_builder"]["stride_shape"] == overlapping
        assert mended["predictor"]["blend"] == (blend or "gaussian")


def test_percentiles_of_the_volume_and_not_of_a_patch(data: Path, tmp_path: Path) -> None:
    """Upstream takes the values at two percentiles of the raw volume for percentiles: it needs them in 0..100."""
    steps = [{"name": "PercentileNormalizer"}, {"name": "ToTensor", "expand_dims": True}]
    for name in ("train", "val"):
        with h5py.File(data / f"{name}.h5", "a") as file:
            if "bright" not in file:
                values = np.random.default_rng(0).uniform(0, 90, file["raw"].shape).astype(np.float32)
                file["bright_patch"] = values.copy()
                file["bright_patch"][0, 0, :4] = 500  # too few to be a percentile of the volume
                file["bright"] = np.where(np.arange(values.shape[2]) > 60, 500, values)
    for stored, found in (("bright_patch", False), ("bright", True)):
        loaders = {"global_normalization": True, "raw_internal_path": stored}
        loaders |= {name: {"transformer": {"raw": steps}} for name in ("train", "val")}
        config = merged(training_config(data, {"name": "UNet3D", "final_activation": "none"}), {"loaders": loaders})
        assert ("P3D309" in codes(config, tmp_path)) == found


class TestOneFixIsEnough:
    """What was fixed as told is not found again under another name, and one cause is one finding."""

    def findings(self, data: Path, directory: Path, changes: dict[str, Any]) -> dict[str, str]:
        config = merged(training_config(data, SCALED), changes)
        path = write_config(directory / "config.yml", config)
        report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
        return {finding.rule.code: str(finding.found.fix) for finding in report.findings}

    def test_a_number_that_yaml_takes_for_a_text(self, data: Path, tmp_path: Path) -> None:
        config = training_config(data, {"name": "UNet3D", "final_activation": "none"})
        path = write_config(tmp_path / "config.yml", config | {"optimizer": {"name": "Adam", "lr": "1e-3"}})
        report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
        assert [str(finding.found.fix) for finding in report.findings] == [
            "optimizer:\n  learning_rate: 0.001\n  # delete lr"
        ]

    def test_a_misspelled_key_is_not_missing_as_well(self, data: Path, tmp_path: Path) -> None:
        config = training_config(data, {"name": "UNet3D", "final_activation": "none"})
        config["trainer"]["max_num_iteration"] = config["trainer"].pop("max_num_iterations")
        path = write_config(tmp_path / "config.yml", config)
        report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
        assert [str(finding.found.fix) for finding in report.findings] == [
            "trainer:\n  max_num_iterations: 4\n  # delete max_num_iteration"
        ]

    def test_a_misspelled_argument_is_not_missing_as_well(self, data: Path, tmp_path: Path) -> None:
        steps = {"raw": [{"name": "ToTensor", "expand_dim": True}]}
        found = self.findings(data, tmp_path, {"loaders": {"train": {"transformer": steps}}})
        assert "- {name: ToTensor, expand_dims: true}  # in place of item 1" in found["P3D302"]
        assert "P3D301" not in found

    def test_a_missing_transformer_is_one_finding(self, data: Path, tmp_path: Path) -> None:
        found = self.findings(data, tmp_path, {"loaders": {"train": {"transformer": None}}})
        assert found.keys() == {"P3D401"}
        assert " ".join(found["P3D401"].split()) == (
            "loaders: train: transformer: raw: - {name: Standardize} - {name: ToTensor, expand_dims: true} "
            "label: - {name: ToTensor, expand_dims: true}"
        )

    @pytest.mark.parametrize(
        ("key", "meant"),
        [
            ("validate_every", "validate_after_iters"),
            ("val_every", "validate_after_iters"),
            ("log_every", "log_after_iters"),
            ("epochs", "max_num_epochs"),
            ("max_epochs", "max_num_epochs"),
            ("max_steps", "max_num_iterations"),
        ],
    )
    def test_a_trainer_key_of_another_framework(self, key: str, meant: str, data: Path, tmp_path: Path) -> None:
        config = training_config(data, SCALED)
        config["trainer"].pop(meant, None)
        config["trainer"][key] = 3
        path = write_config(tmp_path / "config.yml", config)
        report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
        (finding,) = report.findings
        fix = finding.found.fix
        assert str(fix) == f"trainer:\n  {meant}: 3\n  # delete {key}"
        mended = fix.applied_to(config)
        assert mended["trainer"][meant] == 3
        assert key not in mended["trainer"]

    def test_a_key_that_is_no_text_is_deleted(self, data: Path, tmp_path: Path) -> None:
        for section, odd in (("trainer", 1), ("optimizer", None)):
            config = training_config(data, SCALED)
            config[section][odd] = 2
            path = write_config(tmp_path / "config.yml", config)
            report = check_file(str(path), [], rules(), with_data=False, progress=Silent())
            (finding,) = report.findings
            assert odd not in finding.found.fix.applied_to(config)[section]

    def test_a_patch_that_does_not_fit_is_not_the_files_fault(self, data: Path, tmp_path: Path) -> None:
        shapes = {"patch_shape": [32, 64, 64], "stride_shape": [32, 64, 64]}
        found = self.findings(data, tmp_path, {"loaders": {"val": {"slice_builder": shapes}}})
        assert found.keys() == {"P3D406"}
        assert "patch_shape: [4, 64, 64]\n      stride_shape: [4, 64, 64]" in found["P3D406"]

    def test_a_file_of_a_similar_name(self, data: Path, tmp_path: Path) -> None:
        config = merged(
            training_config(data, {"name": "UNet3D"}), {"loaders": {"val": {"file_paths": [str(data / "vall.h5")]}}}
        )
        path = write_config(tmp_path / "config.yml", config)
        report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
        (found,) = [finding for finding in report.findings if finding.rule.code == "P3D403"]
        assert found.message.endswith("did you mean val.h5?")

    def test_what_was_left_out_is_said(self, data: Path, tmp_path: Path) -> None:
        config = training_config(data, {"name": "UNet3D", "final_activation": "none"})
        path = write_config(tmp_path / "config.yml", config)
        (note,) = check_file(str(path), [], rules(), with_data=False, progress=Silent()).notes
        assert note.startswith("the data were not read, and ")
        config["loaders"]["dataset"] = "Standard"
        path = write_config(tmp_path / "config.yml", config)
        (note,) = check_file(str(path), [], rules(), with_data=True, progress=Silent()).notes
        assert note == "the data were not read: correct the section loaders first"
