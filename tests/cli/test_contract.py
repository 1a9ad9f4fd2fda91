"""A checkpoint and the training that it comes from, against the config of a prediction or of another training.

The commands run in forks; what they compute is compared with the prediction by the config of the training.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.model import contract
from support.checks import Silent, merged
from support.lab import prediction_config, training_config, write_config, write_volumes
from support.preforked import Preforked

MODEL = {"name": "UNet3D", "final_activation": "none", "num_groups": 2, "layer_order": "gcl"}
RAW = [{"name": "Standardize", "mean": 0.4, "std": 0.2}, {"name": "ToTensor", "expand_dims": True}]
LABEL = [{"name": "Standardize", "mean": 3.0, "std": 2.0}, {"name": "ToTensor", "expand_dims": True}]


def with_raw(config: dict[str, Any], raw: list[dict[str, Any]]) -> dict[str, Any]:
    for phase in {"train", "val", "test"} & config["loaders"].keys():
        config["loaders"][phase]["transformer"]["raw"] = raw
    return config


@pytest.fixture(scope="module")
def trained(forked: Preforked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("contract")
    write_volumes(directory)
    config = with_raw(training_config(directory, MODEL), RAW)
    for phase in ("train", "val"):
        config["loaders"][phase]["transformer"]["label"] = LABEL
    run = forked.run("train3dunet", "--config", write_config(directory / "train.yml", config))
    assert run.returncode == 0, run.stderr
    return directory


@pytest.fixture
def predict(forked: Preforked, trained: Path, tmp_path: Path) -> Callable[..., Any]:
    def run(change: Callable[[dict[str, Any]], None], **variables: str) -> tuple[Any, np.ndarray | None, set[str]]:
        config = with_raw(prediction_config(trained, MODEL), RAW)
        config["loaders"]["output_dir"] = str(tmp_path / "out")
        change(config)
        path = write_config(tmp_path / "predict.yml", config)
        report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
        assert report.failures == []
        result = forked.having(**variables).run("predict3dunet", "--config", path)
        written = tmp_path / "out" / "val_predictions.h5"
        if not written.exists():
            return result, None, {finding.rule.code for finding in report.findings}
        with h5py.File(written) as file:
            return result, file["predictions"][()], {finding.rule.code for finding in report.findings}

    return run


def nothing(config: dict[str, Any]) -> None:
    pass


def minimal(config: dict[str, Any]) -> None:
    config["model"] = {"name": "UNet3D"}


def no_section(config: dict[str, Any]) -> None:
    del config["model"]


def one_forgotten(config: dict[str, Any]) -> None:
    del config["model"]["num_groups"]


def whole_numbers(config: dict[str, Any]) -> None:
    config["loaders"]["test"]["transformer"]["raw"] = [
        {"name": "Standardize", "std": 0.2, "mean": 0.4, "channelwise": False},
        {"name": "ToTensor", "expand_dims": True, "dtype": "float32"},
    ]


class TestTheSameFunction:
    @pytest.mark.parametrize("change", [minimal, no_section, one_forgotten, whole_numbers])
    def test_predicts_as_the_config_of_the_training(self, predict, change) -> None:
        run, wanted, codes = predict(nothing)
        assert "the units of the transformed labels" in run.stdout
        assert "mean: 3.0, std: 2.0" in run.stdout
        assert codes == set()
        result, found, codes = predict(change)
        assert result.returncode == 0, result.stderr
        np.testing.assert_array_equal(found, wanted, strict=True)
        forgot = change is one_forgotten
        assert codes == ({"P3D611"} if forgot else set())
        assert ("WARNING P3DRegression - the config has no model.num_groups: 2;" in result.stdout) == forgot

    def test_the_checkpoint_says_what_it_was_trained_with(self, trained: Path) -> None:
        state = torch.load(trained / "checkpoints" / "best_checkpoint.pytorch", weights_only=True)
        held = contract.held_by(state["model_state_dict"]._metadata[""])
        assert held is not None
        assert held.contract.model["layer_order"] == "gcl"
        assert held.contract.model["f_maps"] == [8, 16]
        assert held.contract.raw == RAW
        assert held.contract.label == LABEL
        assert held.contract.patch_shape == [4, 64, 64]
        assert held.contract.versions.keys() == {"p3d-regression", "pytorch3dunet", "torch"}

    def test_plain_upstream_loads_it(self, forked_bare: Preforked, trained: Path, predict, tmp_path: Path) -> None:
        config = with_raw(prediction_config(trained, {**MODEL, "is_segmentation": False}), RAW)
        config["loaders"]["output_dir"] = str(tmp_path / "bare")
        result = forked_bare.run("predict3dunet", "--config", write_config(tmp_path / "bare.yml", config))
        assert result.returncode == 0, result.stderr
        _, wanted, _ = predict(nothing)
        with h5py.File(tmp_path / "bare" / "val_predictions.h5") as file:
            np.testing.assert_array_equal(file["predictions"][()], wanted, strict=True)


def other(**model: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["model"].update(model)


def raw(*steps: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda config: with_raw(config, [*steps, {"name": "ToTensor", "expand_dims": True}])


class TestAnotherFunction:
    @pytest.mark.parametrize(
        ("change", "key", "line"),
        [
            (other(num_groups=4), "model.num_groups", "num_groups: 2"),
            (other(layer_order="gcr"), "model.layer_order", "layer_order: gcl"),
            (other(upsample="nearest"), "model.upsample", "upsample: default"),
            (other(f_maps=[16, 32]), "model.f_maps", "f_maps: [8, 16]"),
            (other(f_maps=8, num_levels=3), "model.f_maps", "f_maps: [8, 16]"),
            (other(in_channels=2), "model.in_channels", "in_channels: 1"),
            (other(name="ResidualUNet3D"), "model.name", "name: UNet3D"),
            (raw(), "loaders.test.transformer.raw", "mean: 0.4"),
            (raw({"name": "Standardize"}), "loaders.test.transformer.raw", "mean: 0.4"),
            (raw({"name": "Standardize", "mean": 0.5, "std": 0.2}), "loaders.test.transformer.raw", "mean: 0.4"),
            (raw(RAW[0], {"name": "Normalize"}), "loaders.test.transformer.raw", "mean: 0.4"),
        ],
    )
    def test_stops_before_anything_is_built(self, predict, change, key: str, line: str) -> None:
        result, found, codes = predict(change)
        assert found is None
        assert result.returncode == 1
        assert "P3D602" in codes
        assert f"{key}: is " in result.stderr
        assert line in result.stderr
        assert "Number of learnable" not in result.stdout
        assert "Loading model" not in result.stdout

    def test_who_knows_better_can_go_on(self, predict) -> None:
        result, found, _ = predict(other(num_groups=4), P3D_REGRESSION_CHECKS="warn")
        assert result.returncode == 0, result.stderr
        _, wanted, _ = predict(nothing)
        assert not np.array_equal(found, wanted)
        assert "WARNING P3DRegression - P3D602" in result.stdout

    def test_a_fine_tuning_may_have_other_raw_transforms(self, forked: Preforked, trained: Path, tmp_path) -> None:
        start = {"trainer": {"pre_trained": str(trained / "checkpoints" / "best_checkpoint.pytorch")}}
        config = merged(training_config(trained, MODEL, iterations=1), start)
        config["trainer"]["checkpoint_dir"] = str(tmp_path / "tuned")
        result = forked.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
        assert result.returncode == 0, result.stderr
        assert "WARNING P3DRegression - P3D612" in result.stdout

    def test_a_resumed_training_may_not(self, forked: Preforked, trained: Path, tmp_path: Path) -> None:
        start = {"trainer": {"resume": str(trained / "checkpoints" / "last_checkpoint.pytorch")}}
        config = merged(training_config(trained, MODEL, iterations=9), start)
        before = (trained / "checkpoints" / "last_checkpoint.pytorch").read_bytes()
        result = forked.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))
        assert result.returncode == 1
        assert "loaders.val.transformer.raw: is " in result.stderr
        assert (trained / "checkpoints" / "last_checkpoint.pytorch").read_bytes() == before


class TestOlderCheckpoints:
    """Their contract is the training config beside them."""

    @pytest.fixture
    def older(self, trained: Path, tmp_path: Path) -> Path:
        shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
        for path in (tmp_path / "checkpoints").glob("*.pytorch"):
            state = torch.load(path, weights_only=True)
            del state["model_state_dict"]._metadata[""][contract.METADATA_KEY]
            torch.save(state, path)
        return tmp_path / "checkpoints"

    @pytest.mark.parametrize(("groups", "codes"), [(2, set()), (4, {"P3D602"})])
    def test_one_config(self, predict, older: Path, groups: int, codes: set[str]) -> None:
        def change(config: dict[str, Any]) -> None:
            config["model_path"] = str(older / "best_checkpoint.pytorch")
            config["model"]["num_groups"] = groups

        result, found, said = predict(change)
        assert (said, found is None, result.returncode) == (codes, bool(codes), int(bool(codes)))

    def test_two_configs_that_disagree_are_a_warning(self, predict, older: Path) -> None:
        (beside,) = older.glob("logs/*/train.yml")
        another = yaml.safe_load(beside.read_text())
        another["model"]["num_groups"] = 4
        (older / "logs" / "z").mkdir()
        write_config(older / "logs" / "z" / "train.yml", another)
        result, _, codes = predict(lambda c: c.update(model_path=str(older / "best_checkpoint.pytorch")))
        assert result.returncode == 0, result.stderr
        assert codes == {"P3D612"}
        assert "model.num_groups: is 2, but the checkpoint was trained with 4" in result.stdout

    def test_odd_files_in_logs_are_passed_over(self, predict, older: Path) -> None:
        for name, text in {"a.yml": ": :", "b.yml": "[1]", "c.yml": "trainer: {}\nmodel: 3\nloaders: []"}.items():
            (older / "logs" / name).mkdir()
            (older / "logs" / name / name).write_text(text)
        result, _, _ = predict(lambda c: c.update(model_path=str(older / "best_checkpoint.pytorch")))
        assert result.returncode == 0, result.stderr
