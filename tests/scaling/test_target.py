"""What a scaling does to a final activation, and which it leaves alone."""

import numpy as np
import pytest
import torch

from p3d_regression import ConfigError
from p3d_regression.activations.registry import resolve
from p3d_regression.scaling.spec import parse
from p3d_regression.scaling.target import restored, scaling_of
from p3d_regression.scaling.terms import Numbers

MEASURED = [Numbers(12.5, 13.0), Numbers(100.0, 4.0)]


def scaled(final: object, value: object, channels: int = 1) -> str:
    found = scaling_of(parse(value, channels), resolve(final, channels), MEASURED[:channels])
    return "nothing" if found is None else found.describe(resolve(final, channels))


@pytest.mark.parametrize(
    ("final", "value", "formula"),
    [
        ("none", "standardize", "output = 12.5 + 13 * x"),
        ("leaky_relu", "standardize", "output = 12.5 + 13 * leaky_relu"),
        ("softplus", "standardize", "output = 13 * softplus"),
        ("exp", "standardize", "output = 13 * exp"),
        ("relu", {"mean": 0, "std": 3}, "output = 3 * relu"),
        ("log_sigmoid", "standardize", "output = 13 * logsigmoid"),
        ({"name": "upper_bounded", "high": 0}, "standardize", "output = 13 * {name: upper_bounded, high: 0.0}"),
        ("none", {"mean": -1, "std": 0.5}, "output = -1 + 0.5 * x"),
        ("sigmoid", "none", "nothing"),
        ("none", {"mean": 0, "std": 1}, "nothing"),
    ],
)
def test_a_mean_is_added_where_there_is_no_bound(final: object, value: object, formula: str) -> None:
    assert scaled(final, value) == formula


def test_channels_are_scaled_one_by_one() -> None:
    assert scaled(["none", "softplus"], "standardize", 2) == "channel 0 = 12.5 + 13 * x; channel 1 = 4 * softplus"
    assert scaled(["sigmoid", "none"], ["none", "standardize"], 2) == "channel 0 = sigmoid; channel 1 = 100 + 4 * x"


@pytest.mark.parametrize(
    ("final", "channels", "why"),
    [
        ("sigmoid", 1, "sigmoid is bounded: its values are in [0, 1], as the config says"),
        ("tanh", 2, "tanh (output channel 0) is bounded"),
        ({"name": "bounded", "low": 0, "high": 70}, 1, "is bounded: its values are in [0, 70], as the config says"),
        ("elu", 1, "elu has the range [-1, inf), and scaling would move its bound"),
        ({"name": "lower_bounded", "low": -1000}, 1, "has the range [-1000, inf)"),
        ("softmax", 2, "softmax (output channel 0) acts over all channels"),
        ("log_softmax", 2, "log_softmax (output channel 0) acts over all channels"),
        (["none", "sigmoid"], 2, "sigmoid (output channel 1) is bounded"),
    ],
)
@pytest.mark.parametrize("value", ["standardize", {"mean": 1, "std": 2}])
def test_bounds_that_a_config_asks_for_are_not_moved(final: object, channels: int, why: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        scaled(final, value, channels)
    message = str(caught.value)
    assert message.startswith("model.target_scaling: ")
    assert why in message
    assert ("{name: bounded, low: ..., high: ...}" in message) == ("is bounded" in why)
    fixed = mended(final, value, channels, caught.value)
    if final == ["none", "sigmoid"]:
        assert fixed["target_scaling"] == [value, "none"]
    else:
        assert "target_scaling" not in fixed


def test_a_mean_of_ones_own_would_move_the_bound() -> None:
    message = r"the mean 5 would move the bound of softplus, whose range is \[0, inf\)"
    with pytest.raises(ConfigError, match=message) as caught:
        scaled("softplus", {"mean": 5, "std": 2})
    fixed = mended("softplus", {"mean": 5, "std": 2}, 1, caught.value)
    assert fixed["target_scaling"] == {"mean": 0.0, "std": 2.0}


def mended(final: object, value: object, channels: int, error: ConfigError) -> dict[str, object]:
    """A model section after the fix of its error, which works."""
    config = {"model": {"final_activation": final, "target_scaling": value}}
    model = error.found.fix.applied_to(config)["model"]
    scaled(model["final_activation"], model.get("target_scaling", "none"), channels)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_module_computes_it_in_single_precision(dtype: torch.dtype) -> None:
    scaling = scaling_of(parse({"mean": [70_000, 0], "std": [13, 2]}, 2), resolve("none", 2))
    assert scaling is not None
    x = torch.linspace(-2, 2, 48).reshape(2, 2, 3, 2, 2).to(dtype)
    found = scaling.build()(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0], 70_000 + 13 * x[:, 0].float())
    torch.testing.assert_close(found[:, 1], 2 * x[:, 1].float())


def test_the_module_stays_in_single_precision_when_a_model_does_not() -> None:
    scaling = scaling_of(parse({"mean": 70_000, "std": 0.1}, 1), resolve("none", 1))
    assert scaling is not None
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 1, 1), scaling.build()).to(torch.bfloat16)
    assert model(torch.zeros(1, 1, 2, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert model[1].offset.item() == 70_000
    assert model[1].factor.item() == np.float32(0.1)
    assert model.to("meta")[1].offset.is_meta


def test_the_module_leaves_no_trace_in_a_state() -> None:
    scaling = scaling_of(parse({"mean": 1, "std": 2}, 1), resolve("none", 1))
    assert scaling is not None
    module = scaling.build()
    assert not module.state_dict()
    assert not list(module.parameters())
    assert str(module) == "Rescale(mean=[1.0], std=[2.0])"


def test_what_a_checkpoint_remembers_is_restored() -> None:
    final = resolve(["none", "softplus"], 2)
    scaling = scaling_of(parse("standardize", 2), final, MEASURED)
    assert scaling is not None
    assert scaling.plain == {"mean": [12.5, 0.0], "std": [13.0, 4.0]}
    assert restored(scaling.plain, final) == scaling
    with pytest.raises(ConfigError):
        restored({"mean": [0, 0], "std": [1, 1]}, final)
