"""From the ``loss`` section to a loss, and what is refused with which words."""

import json
from typing import Any

import pytest
from torch import nn

from p3d_regression import Interval, Loss
from p3d_regression.components.component import Refused
from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix
from p3d_regression.labels.floor import ABSOLUTE
from p3d_regression.losses.build import build, resolve
from p3d_regression.losses.registry import registry


def refusal(section: dict[str, Any], channels: int | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        build(resolve(section, channels))
    return str(caught.value)


@pytest.mark.parametrize("name", ["HuberLoss", "huber_loss", "huberloss", "HUBER-LOSS", "Huber"])
def test_case_and_underscores_do_not_matter(name: str) -> None:
    assert str(resolve({"name": name, "delta": 2})) == "{name: HuberLoss, delta: 2.0}"


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ({"name": "HubberLoss"}, ["loss.name: 'HubberLoss'", "did you mean HuberLoss?", "p3d-regression losses"]),
        ({"name": "torch.nn.HuberLoss"}, ["did you mean HuberLoss? A name is not an import path"]),
        ({"name": "nonsense"}, ["For unbounded values write MSELoss"]),
        ({"name": "CrossEntropyLoss", "delta": 1}, ["cannot be a loss", "does not have a loss for each voxel"]),
        ({"name": "TripletMarginLoss"}, ["takes 3 inputs"]),
        ({"delta": 1}, ["loss: {'delta': 1} has no name"]),
        ({"name": "HuberLoss", "dleta": 1}, ["loss.dleta", "did you mean delta?", "name: HuberLoss"]),
        ({"name": "HuberLoss", "delta": "big"}, ["loss.delta: 'big' is not a number"]),
        ({"name": "HuberLoss", "delta": "1e-3"}, ["YAML reads it as a text; write 0.001"]),
        ({"name": "HuberLoss", "delta": -1}, ["cannot be computed", "delta"]),
        ({"name": "HuberLoss", "reduction": "sum"}, ["loss.reduction", "always the mean over the voxels that count"]),
        ({"name": "HuberLoss", "weight": [1, 2]}, ["loss.weight: [1, 2] is not a number above 0"]),
        ({"name": "HuberLoss", "weight": 0}, ["loss.weight: 0 is not a number above 0"]),
        (
            {"name": "HuberLoss", "ignore_index": "nan"},
            ["loss.ignore_index: 'nan' is not a number", "ignore_index: .nan"],
        ),
        ({"name": "HuberLoss", "ignore_index": True}, ["loss.ignore_index: True is not a number"]),
        (
            {"name": "HuberLoss", "skip_last_target": True},
            ["loss.skip_last_target", "delete that channel from"],
        ),
        ({"name": "channelwise"}, ["loss.channels: None is not a list of losses", "- {name: BCELoss}"]),
        ({"name": "channelwise", "channels": []}, ["loss.channels: [] is not a list"]),
        ({"name": "channelwise", "channels": ["L1Loss", 3]}, ["loss.channels[1]: 3 is not a loss"]),
        ({"name": "channelwise", "channels": [{"delta": 3}]}, ["loss.channels[0]: {'delta': 3} has no name"]),
        ({"name": "channelwise", "channels": ["L1Loss", "Nope"]}, ["loss.channels[1].name: 'Nope'"]),
        ({"name": "channelwise", "channels": ["L1Loss"], "beta": 3}, ["loss.beta: 3: channelwise takes channels only"]),
        (
            {"name": "channelwise", "channels": [{"name": "L1Loss", "ignore_index": 3}]},
            ["it applies to the whole loss"],
        ),
        (
            {"name": "channelwise", "channels": [{"name": "channelwise", "channels": ["L1Loss"]}]},
            ["channelwise applies to the whole loss"],
        ),
        (
            {"name": "weighted_sum", "losses": ["L1Loss", "GaussianNLLLoss"]},
            ["loss.losses[1]", "different numbers of outputs"],
        ),
        ({"name": "weighted_sum", "losses": ["L1Loss", "DiceLoss"], "ignore_index": 0}, ["DiceLoss is not a mean"]),
    ],
)
def test_what_is_wrong_is_named_with_key_value_and_fix(section: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(resolve(section))
    for part in parts:
        assert part in str(caught.value)
    build(resolve(fixed(caught.value, section)["loss"]))


def fixed(error: ConfigError, section: dict[str, Any]) -> dict[str, Any]:
    """The config with what the error says to write."""
    fix = error.found.fix
    assert isinstance(fix, Fix)
    assert fix.changes
    config: dict[str, Any] = fix.applied_to({"loss": section})
    return config


WEIGHTED = {"name": "WeightedSmoothL1Loss", "threshold": 1.0, "initial_weight": 2.0}

LOSSES = [{"name": "BCELoss"}, {"name": "L1Loss", "weight": 0.3}]


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        ({"name": "chanelwise", "channels": LOSSES}, {"name": "channelwise", "channels": LOSSES}),
        ({"name": "Channel_Wise ", "channels": LOSSES}, None),
        ({"name": "wieghted_sum", "losses": LOSSES}, {"name": "weighted_sum", "losses": LOSSES}),
        ({"name": "wieghted_sum", "channels": LOSSES}, {"name": "weighted_sum", "losses": LOSSES}),
        ({"name": "per channel", "channels": LOSSES}, {"name": "channelwise", "channels": LOSSES}),
        ({"channels": LOSSES, "ignore_index": -1}, {"name": "channelwise", "channels": LOSSES, "ignore_index": -1}),
        (
            {"name": "chanelwise"},
            {"name": "channelwise", "channels": [{"name": "BCELoss"}, {"name": "L1Loss", "weight": 0.2}]},
        ),
        (
            {"name": "HubberLoss", "delta": "2.5", "weight": 3, "ignore_index": -1, "dleta": 4},
            {"name": "HuberLoss", "delta": 2.5, "weight": 3, "ignore_index": -1},
        ),
        (
            {"name": "channelwise", "channels": [{"name": "l1los", "weight": 2}, {"name": "Hubber", "delta": 3}]},
            {"name": "channelwise", "channels": [{"name": "L1Loss", "weight": 2}, {"name": "Hubber", "delta": 3}]},
        ),
        (
            {"name": "weighted_sum", "losses": {"name": "L1Loss"}},
            {"name": "weighted_sum", "losses": [{"name": "L1Loss"}]},
        ),
        ({"name": "L1Loss", "weight": "5e-1"}, {"name": "L1Loss", "weight": 0.5}),
        ({"name": "L1Loss", "ignore_index": "-1"}, {"name": "L1Loss", "ignore_index": -1}),
    ],
)
def test_a_fix_keeps_what_the_user_has_written(section: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    if wanted is None:
        resolve(section)
        return
    with pytest.raises(ConfigError) as caught:
        resolve(section)
    assert "did you mean" in str(caught.value) or "is not a" in str(caught.value)
    assert fixed(caught.value, section)["loss"] == wanted


@pytest.mark.parametrize(
    ("section", "channels", "part"),
    [
        ({"name": "GaussianNLLLoss"}, 1, "final_activation: [none, softplus]"),
        ({"name": "channelwise", "channels": ["L1Loss"]}, 2, "its entries need 1 output channels"),
        ({"name": "channelwise", "channels": ["L1Loss", "GaussianNLLLoss"]}, 2, "its entries need 3 output channels"),
    ],
)
def test_what_does_not_fit_the_model(section: dict[str, Any], channels: int, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(section, channels)
    assert part in str(caught.value)
    resolve(section, fixed(caught.value, section)["model"]["out_channels"])


@pytest.mark.parametrize(
    ("section", "channels", "predicted"),
    [
        ({"name": "L1Loss"}, 3, [0, 1, 2]),
        ({"name": "GaussianNLLLoss"}, 4, [0, 1]),
        ({"name": "channelwise", "channels": ["GaussianNLLLoss", "L1Loss", "GaussianNLL"]}, 5, [0, 2, 3]),
        ({"name": "weighted_sum", "losses": ["GaussianNLLLoss", "GaussianNLLLoss"]}, 2, [0]),
    ],
)
def test_which_outputs_predict_labels(section: dict[str, Any], channels: int, predicted: list[int]) -> None:
    assert resolve(section, channels).predicted(channels) == predicted


def test_the_smallest_variances_have_their_keys() -> None:
    likelihood = {"name": "GaussianNLLLoss", "eps": 1e-4}
    assert resolve(likelihood, 4).least_variances(4) == {2: ("loss.eps", 1e-4), 3: ("loss.eps", 1e-4)}
    section = {"name": "channelwise", "channels": [WEIGHTED, likelihood]}
    assert resolve(section, 3).least_variances(3) == {2: ("loss.channels[1].eps", 1e-4)}
    several = {"name": "weighted_sum", "losses": [likelihood, {**likelihood, "eps": 1e-2}]}
    assert resolve(several, 2).least_variances(2) == {1: ("loss.losses[1].eps", 1e-2)}
    assert resolve({**WEIGHTED, "ignore_index": -1}, 1).least_variances(1) == {}


def test_which_outputs_a_loss_needs() -> None:
    section = {"name": "channelwise", "channels": ["BCELoss", "GaussianNLLLoss", {"name": "L1Loss"}]}
    needs = [(channel, str(interval)) for channel, interval, _ in resolve(section, 4).needs(4)]
    assert needs == [(0, "[0, 1]"), (1, "(-inf, inf)"), (2, "[0, inf)"), (3, "(-inf, inf)")]
    rate = resolve({"name": "PoissonNLLLoss", "log_input": False}, 2)
    assert [str(interval) for _, interval, _ in rate.needs(2)] == ["[0, inf)"] * 2
    assert [str(interval) for _, interval, _ in rate.labels(1)] == ["[0, inf)"]


def test_the_table_is_plain_data_and_its_examples_work() -> None:
    table = json.loads(json.dumps(registry().rows()))
    assert {"MSELoss", "HuberLoss", "GaussianNLLLoss", "channelwise", "weighted_sum", "DiceLoss"} <= {
        row["name"] for row in table
    }
    for row in table:
        build(resolve(row["example"]))
        assert row["origin"] in ("built-in", "torch.nn", "pytorch3dunet")
        assert row["use"]


def test_every_loss_of_torch_is_offered_or_refused() -> None:
    for name in nn.modules.loss.__all__:
        assert registry().get(name, "here") or isinstance(registry()._registrations[name.lower()][0].what, Refused)


class Cut(nn.Module):
    def forward(self, output: Any, label: Any) -> Any:
        return (output - label)[:, :, :1] ** 2


class Squared(nn.Module):
    def forward(self, output: Any, label: Any) -> Any:
        return (output - label) ** 2


class Constant(nn.Module):
    def forward(self, output: Any, label: Any) -> Any:
        return label * 2


class Logarithm(nn.Module):
    def forward(self, output: Any, label: Any) -> Any:
        return output.log() - label


@pytest.mark.parametrize(
    ("loss", "part"),
    [
        (Loss("cut", Cut, summary=""), "needs a loss for each voxel"),
        (Loss("constant", Constant, summary=""), "has no gradient"),
        (Loss("logarithm", Logarithm, summary="", outputs=Interval(-1.0, 0.0)), "inside the ranges"),
        (
            Loss("floor", Squared, summary="", voxel_loss=lambda arguments: ABSOLUTE),
            "voxel_loss and its module give different values",
        ),
        (Loss("whole", Logarithm, summary="", per_voxel=False), "not one number"),
    ],
)
def test_a_plugin_that_breaks_its_promise_is_refused(loss: Loss, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from p3d_regression.components.registry import Registration
    from p3d_regression.plugins import Plugin

    monkeypatch.setitem(registry()._registrations, loss.name, [Registration(loss, Plugin("x", "x 1.0"))])
    assert part in refusal({"name": loss.name})


def test_a_loss_cannot_claim_the_words_of_configs() -> None:
    def build_one(weight: float = 1.0) -> nn.Module:
        return nn.MSELoss(reduction="none")

    with pytest.raises(ValueError, match="configs need the word weight"):
        Loss("mine", build_one, summary="")
