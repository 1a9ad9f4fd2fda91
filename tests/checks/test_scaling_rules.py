"""When a target scaling is recommended, and when it is not."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from p3d_regression.activations.registry import resolve
from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.scaling.target import TargetScaling
from p3d_regression.scaling.terms import Numbers
from support.checks import Silent, merged
from support.lab import training_config, write_config, write_volumes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scaling")
    write_volumes(directory, labels=(0.0, 1.0))
    for name in ("train", "val"):
        with h5py.File(directory / f"{name}.h5", "a") as file:
            label = file["label"][()]
            file["hounsfield"] = 2000 * label - 1000
            file["strain"] = 0.001 * label
            file["counts"] = 100 * label
            file["offset"] = label + 40
            file["two"] = np.stack([label, 300 * label])
            file["same"] = 0 * label
    for name, final, scaling in (
        ("softplus", "softplus", None),
        ("scaled", "none", TargetScaling((Numbers(50.0, 30.0),))),
    ):
        state = torch.nn.Conv3d(1, 1, 1).state_dict()
        state._metadata[""][checkpoint_memory.METADATA_KEY] = checkpoint_memory.to_plain(
            checkpoint_memory.Memory(resolve(final, 1), scaling)
        )
        torch.save({"model_state_dict": state}, directory / f"{name}.pytorch")
    return directory


def found(data: Path, directory: Path, label: str, changes: dict[str, Any]) -> dict[str, tuple[str, str]]:
    config = merged(training_config(data, {"name": "UNet3D"}), {"loaders": {"label_internal_path": label}})
    path = write_config(directory / "config.yml", merged(config, changes))
    chosen = [rule for rule in rules() if rule.code.startswith("P3D7")]
    report = check_file(str(path), [], chosen, with_data=True, progress=Silent())
    assert report.failures == []
    return {finding.rule.code: (finding.found.message, str(finding.found.fix)) for finding in report.findings}


NONE = {"model": {"final_activation": "none"}}
PLAIN = {"model": {"is_segmentation": False}}


@pytest.mark.parametrize("model", [NONE, PLAIN])
@pytest.mark.parametrize("label", ["hounsfield", "strain", "counts", "offset"])
def test_recommended_with_the_measured_numbers(data: Path, tmp_path: Path, label: str, model: dict[str, Any]) -> None:
    message, fix = found(data, tmp_path, label, model)["P3D704"]
    assert message.startswith("the labels of train have the mean ")
    assert fix == "model:\n  final_activation: none\n  target_scaling: standardize"


@pytest.mark.parametrize(
    ("label", "changes"),
    [
        ("label", NONE),
        ("label", PLAIN),
        ("hounsfield", {"model": {"final_activation": "none", "target_scaling": "standardize"}}),
        ("hounsfield", {"model": {"final_activation": "none", "target_scaling": {"mean": 10, "std": 400}}}),
        ("hounsfield", {"model": {"final_activation": {"name": "bounded", "low": -1000, "high": 1000}}}),
        ("hounsfield", {"model": {"final_activation": {"name": "lower_bounded", "low": -1000}}}),
        ("hounsfield", {"model": {"final_sigmoid": True}}),
        ("counts", {**NONE, "loss": {"name": "PoissonNLLLoss"}}),
        ("offset", {"model": {"final_activation": "softplus"}}),
        ("counts", {**NONE, "trainer": {"resume": "anything"}}),
        ("same", {"model": {"final_activation": "none", "target_scaling": "standardize"}, "trainer": {"resume": "x"}}),
        ("counts", {**NONE, "loss": {"name": "DiceLoss"}, "eval_metric": {"name": "DiceCoefficient"}}),
    ],
)
def test_not_recommended(data: Path, tmp_path: Path, label: str, changes: dict[str, Any]) -> None:
    assert found(data, tmp_path, label, changes) == {}


def test_numbers_that_do_not_fit_are_found(data: Path, tmp_path: Path) -> None:
    model = {"model": {"final_activation": "none", "target_scaling": {"mean": 10, "std": 1}}}
    message, _ = found(data, tmp_path, "hounsfield", model)["P3D704"]
    assert message.endswith(", target_scaling is made for 10 and 1")


def test_only_for_the_channels_that_want_it(data: Path, tmp_path: Path) -> None:
    model = {"model": {"out_channels": 2, "final_activation": ["sigmoid", "none"]}}
    message, fix = found(data, tmp_path, "two", model)["P3D704"]
    assert message.startswith("the labels of train have in channel 1 the mean ")
    assert fix == "model:\n  final_activation: [sigmoid, none]\n  target_scaling: [none, standardize]"


def test_for_what_a_checkpoint_brings(data: Path, tmp_path: Path) -> None:
    start = {"trainer": {"pre_trained": str(data / "softplus.pytorch")}}
    _, fix = found(data, tmp_path, "counts", start)["P3D704"]
    assert fix == "model:\n  final_activation: softplus\n  target_scaling: standardize"
    start = {"trainer": {"pre_trained": str(data / "scaled.pytorch")}}
    assert found(data, tmp_path, "counts", start) == {}
    assert "P3D704" in found(data, tmp_path, "hounsfield", start)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ({"final_activation": "tanh", "target_scaling": "standardize"}, "P3D701"),
        ({"target_scaling": "standardize"}, "P3D701"),
        ({"final_activation": "none", "target_scaling": 3}, "P3D701"),
        ({"final_activation": "none", "target_scaling": "standardize", "out_channels": None}, ""),
        ({"final_activation": [], "target_scaling": []}, "P3D701"),
    ],
)
def test_what_cannot_be_is_found_in_any_config(data: Path, tmp_path: Path, model: dict[str, Any], code: str) -> None:
    assert set(found(data, tmp_path, "counts", {"model": model})) == ({code} if code else set())


def test_a_prediction_with_other_numbers_than_the_checkpoints(data: Path, tmp_path: Path) -> None:
    from support.lab import prediction_config

    chosen = [rule for rule in rules() if rule.code == "P3D602"]
    codes = []
    for value in ({"mean": 50, "std": 30}, "standardize", {"mean": 1, "std": 30}, "none"):
        config = prediction_config(data, {"name": "UNet3D", "final_activation": "none", "target_scaling": value})
        config["model_path"] = str(data / "scaled.pytorch")
        path = write_config(tmp_path / "predict.yml", config)
        report = check_file(str(path), [], chosen, with_data=True, progress=Silent())
        codes.append([finding.found.key for finding in report.findings])
    assert codes == [[], [], ["model.target_scaling"], ["model.target_scaling"]]
