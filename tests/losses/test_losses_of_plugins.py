"""A loss of a plugin that tells everything about itself: floor, target scaling and rules use it."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from torch import Tensor, nn

from p3d_regression import Interval, Loss, VoxelLoss, hookimpl, plugins
from p3d_regression.activations.registry import resolve as resolve_activation
from p3d_regression.checks.registry import rules
from p3d_regression.checks.rule import Finding
from p3d_regression.checks.run import check_file
from p3d_regression.losses.build import build
from p3d_regression.losses.registry import registry
from p3d_regression.scaling.gradient import gradient_size
from p3d_regression.scaling.target import TargetScaling
from p3d_regression.scaling.terms import Numbers
from p3d_regression.training.plan import plan_of
from support.checks import Silent, merged
from support.lab import training_config, write_config, write_volumes


class Charbonnier(nn.Module):
    """Squared near the label, absolute far from it; keeps its width under another name than that of its argument."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.squared_width = width**2

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        return ((output - label) ** 2 + self.squared_width).sqrt() - self.squared_width**0.5


class Logits(nn.Module):
    """The squared error of a sigmoid."""

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        return ((output if self.plain else output.sigmoid()) - label) ** 2


def charbonnier(distance: np.ndarray, width: float) -> np.ndarray:
    return np.sqrt(distance**2 + width**2) - width


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    losses = [
        Loss(
            "CharbonnierLoss",
            Charbonnier,
            summary="",
            units={"width": "difference"},
            voxel_loss=lambda arguments: VoxelLoss(lambda distance: charbonnier(distance, arguments["width"])),
        ),
        Loss(
            "LogitsLoss",
            Logits,
            summary="",
            labels=Interval(0.0, 1.0),
            compares="fractions",
            applies=lambda arguments: None if arguments["plain"] else "sigmoid",
            instead={"plain": True},
        ),
    ]
    found = plugins.Plugins()
    module = ModuleType("more_losses")
    vars(module)["p3d_losses"] = hookimpl(lambda: losses)
    found._register(plugins.Plugin("more_losses", "more-losses 1.0"), module)
    monkeypatch.setattr(plugins, "installed", lambda: found)
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    write_volumes(directory)
    return directory


def findings(config: dict[str, Any], directory: Path) -> dict[str, Finding]:
    path = write_config(directory / "config.yml", config)
    report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
    assert report.failures == []
    return {finding.rule.code: finding for finding in report.findings}


def test_its_floor_is_computed_from_real_volumes(data: Path, tmp_path: Path) -> None:
    config = training_config(data, {"name": "UNet3D", "final_activation": "sigmoid"})
    config["loss"] = {"name": "charbonnier_loss", "width": 2.0}
    with h5py.File(data / "val.h5") as file:
        labels = file["label"][()].astype(float)
    floor = charbonnier(np.abs(labels - labels.clip(0, 1)), 2.0).mean()
    assert floor > 1
    path = write_config(tmp_path / "config.yml", config)
    report = check_file(str(path), [], rules(), with_data=True, progress=Silent())
    said = [finding.found.message for finding in report.findings if finding.rule.code == "P3D501"]
    assert any(f"on val charbonnier_loss cannot fall below {floor:.6g}" in message for message in said)


@pytest.mark.parametrize("std", [13.0, 1.0e-4])
def test_target_scaling_gives_it_arguments_of_the_labels_size(std: float) -> None:
    section = {"name": "CharbonnierLoss", "width": 0.3 * std}
    loss = plan_of({"loss": section, "model": {"out_channels": 1}}, model_is_ours=True).loss
    assert loss is not None
    module, ranges = build(loss), resolve_activation("none", 1).ranges
    scaling, targets = TargetScaling((Numbers(5.0, std),)), [(0, False)]
    known = gradient_size(module, scaling, ranges, targets, loss=loss)
    unknown = gradient_size(module, scaling, ranges, targets)
    assert known is not None
    assert unknown is not None
    assert known.factor == pytest.approx(1 / std, rel=1e-6)
    assert unknown.factor != pytest.approx(1 / std, rel=0.1)


def test_rules_know_its_sigmoid_and_its_labels(data: Path, tmp_path: Path) -> None:
    config = training_config(data, {"name": "UNet3D", "final_activation": "sigmoid"})
    config["loss"] = {"name": "LogitsLoss"}
    found = findings(config, tmp_path)
    assert {"P3D107", "P3D217", "P3D506"} <= found.keys()
    assert "applies a sigmoid" in found["P3D107"].found.message
    assert "LogitsLoss is for [0, 1]" in found["P3D506"].found.message
    for code in ("P3D107", "P3D217"):
        fix = found[code].found.fix
        assert not isinstance(fix, str)
        assert not {"P3D107", "P3D217"} & findings(fix.applied_to(config), tmp_path).keys()


def test_in_a_list_only_the_channels_of_the_loss_are_changed(data: Path, tmp_path: Path) -> None:
    model = {"name": "UNet3D", "out_channels": 2, "final_activation": ["none", "softplus"]}
    channels = {"name": "channelwise", "channels": [{"name": "LogitsLoss"}, {"name": "L1Loss"}]}
    config = merged(training_config(data, model), {"loss": channels})
    fix = findings(config, tmp_path)["P3D217"].found.fix
    assert not isinstance(fix, str)
    fixed = fix.applied_to(config)
    assert fixed["model"]["final_activation"] == ["sigmoid", "softplus"]
    assert fixed["loss"]["channels"] == [{"name": "LogitsLoss", "plain": True}, {"name": "L1Loss"}]


def test_units_are_of_arguments() -> None:
    with pytest.raises(ValueError, match="units of breadth, which is no argument"):
        Loss("Wrong", Charbonnier, summary="", units={"breadth": "difference"})
