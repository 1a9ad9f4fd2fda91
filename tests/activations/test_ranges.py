"""The declared range of each activation, against what it makes of numbers from everywhere."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from p3d_regression import ConfigError, Interval
from p3d_regression.activations.activation import Activation
from p3d_regression.activations.registry import registry, resolve

REGISTRATIONS = [registration.what for registration in registry().registrations()]
PARAMETERS = [activation for activation in REGISTRATIONS if activation.parameters]

#: Dense around 0, where the minima are, and out to where float64 saturates.
LINE = torch.cat(
    [torch.linspace(-60, 60, 60_001, dtype=torch.float64), torch.tensor([-700.0, -100, 100, 700], dtype=torch.float64)]
)


def sample(activation_value: object, channels: int) -> torch.Tensor:
    """Outputs for inputs from everywhere, and in all combinations if there are several channels."""
    few = torch.linspace(-30, 30, 31, dtype=torch.float64)
    x = LINE.reshape(-1, 1) if channels == 1 else torch.cartesian_prod(*[few] * channels)
    module = resolve(activation_value, channels).build()
    outputs = module(x.reshape(-1, channels, 1, 1, 1))
    if channels > 1:
        line = LINE.reshape(-1, 1).repeat(1, channels)
        outputs = torch.cat([outputs, module(line.reshape(-1, channels, 1, 1, 1))])
    return outputs


def assert_is_the_range(outputs: torch.Tensor, declared: Interval, attained: float = 1e-3) -> None:
    """Nothing outside, and what is inside comes close to both ends."""
    low, high = outputs.min().item(), outputs.max().item()
    slack = 1e-9 * max(1.0, *(abs(b) for b in (declared.low, declared.high) if math.isfinite(b)), 0.0)
    assert low >= declared.low - slack
    assert high <= declared.high + slack
    assert low <= (
        declared.low + attained
        if math.isfinite(declared.low)
        else (declared.high if math.isfinite(declared.high) else 0) - 6
    )
    assert high >= (
        declared.high - attained
        if math.isfinite(declared.high)
        else (declared.low if math.isfinite(declared.low) else 0) + 6
    )


@pytest.mark.parametrize(
    ("activation", "channels"),
    [
        pytest.param(activation, channels, id=f"{activation.name}-{channels}")
        for activation in REGISTRATIONS
        for channels in (1, 2, 3)
        if channels > 1 or not activation.over_channels
    ],
)
def test_with_its_defaults(activation: Activation, channels: int) -> None:
    value = {"name": activation.name, **activation.example}
    declared = resolve(value, channels).ranges
    assert len(declared) == channels
    outputs = sample(value, channels)
    for channel in range(channels):
        # softsign creeps towards its ends
        attained = 0.05 if activation.name == "softsign" else 1e-3
        assert_is_the_range(outputs[:, channel], declared[channel], attained)


numbers = st.floats(-50, 50).map(lambda number: round(number, 3))


@pytest.mark.parametrize("activation", PARAMETERS, ids=lambda activation: activation.name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_with_any_arguments(activation: Activation, data: st.DataObject) -> None:
    """Whatever builds stays inside, and the range is not wider than need be."""
    texts = st.sampled_from(["none", "tanh"])
    value = {"name": activation.name}
    for parameter in activation.parameters.values():
        value[parameter.name] = data.draw(texts if parameter.kinds == (str,) else numbers, label=parameter.name)
    channels = 2 if activation.over_channels else 1
    try:
        final = resolve(value, channels)
        final.build()
    except ConfigError:
        assume(False)
    (declared, *_) = final.ranges
    outputs = sample(value, channels)
    outputs = outputs[outputs.isfinite()]
    low, high = outputs.min().item(), outputs.max().item()
    assert low >= declared.low - 1e-9 * max(1.0, abs(declared.low)) or math.isinf(declared.low)
    assert high <= declared.high + 1e-9 * max(1.0, abs(declared.high)) or math.isinf(declared.high)
    if activation.name != "unit_vector":
        # an end that is declared is approached; how closely depends on slopes that were drawn at random
        assert math.isinf(declared.low) or low <= declared.low + 1.1 or value["name"] in SLOW
        assert math.isinf(declared.high) or high >= declared.high - 1.1 or value["name"] in SLOW


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ends=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)).map(sorted))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bounds_hold_to_the_last_bit_in_every_precision(dtype: torch.dtype, ends: list[float]) -> None:
    """As near to the bounds as the precision has numbers."""
    low, high = ends
    assume(torch.tensor(low, dtype=dtype) < torch.tensor(high, dtype=dtype))
    outputs = resolve({"name": "bounded", "low": low, "high": high}, 1).build()(LINE.to(dtype).reshape(-1, 1, 1, 1, 1))
    assert outputs.min() >= torch.tensor(low, dtype=dtype)
    assert outputs.max() <= torch.tensor(high, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_zero_vector_stays_zero(dtype: torch.dtype) -> None:
    zero = torch.zeros(1, 3, 1, 1, 1, dtype=dtype)
    assert torch.equal(resolve("unit_vector", 3).build()(zero), zero)


#: With tiny slopes and large arguments these do not come close to their limits within the sample.
SLOW = {"elu", "celu", "softplus"}


@pytest.mark.parametrize(
    ("value", "channels", "text"),
    [
        ("none", 1, "(-inf, inf)"),
        ("softplus", 1, "[0, inf)"),
        ({"name": "softplus", "beta": 2, "threshold": -10}, 1, "[-5, inf)"),
        ({"name": "softplus", "beta": -1}, 1, "(-inf, 0]"),
        ({"name": "softplus", "beta": -2, "threshold": -10}, 1, "(-inf, 5]"),
        ({"name": "hardtanh", "min_val": -3, "max_val": 7}, 1, "[-3, 7]"),
        ({"name": "bounded", "low": -1000, "high": 3071}, 1, "[-1000, 3071]"),
        ({"name": "lower_bounded", "low": -1000}, 1, "[-1000, inf)"),
        ({"name": "upper_bounded", "high": -3}, 1, "(-inf, -3]"),
        ({"name": "elu", "alpha": 2}, 1, "[-2, inf)"),
        ({"name": "elu", "alpha": -2}, 1, "[0, inf)"),
        ({"name": "celu", "alpha": -2}, 1, "(-inf, inf)"),
        ({"name": "leaky_relu", "negative_slope": 0}, 1, "[0, inf)"),
        ({"name": "leaky_relu", "negative_slope": -1}, 1, "[0, inf)"),
        ({"name": "threshold", "threshold": 2, "value": -5}, 1, "[-5, inf)"),
        ({"name": "threshold", "threshold": 2, "value": 5}, 1, "[2, inf)"),
        ({"name": "gelu", "approximate": "tanh"}, 1, "[-0.1700408, inf)"),
        ("relu6", 1, "[0, 6]"),
        ("softmax", 4, "[0, 1]"),
        ("log_softmax", 2, "(-inf, 0]"),
    ],
)
def test_known_ranges(value: object, channels: int, text: str) -> None:
    assert [str(interval) for interval in resolve(value, channels).ranges] == [text] * channels


@pytest.mark.parametrize(("name", "text"), [("softmax", "{1}"), ("softmin", "{1}"), ("log_softmax", "{0}")])
def test_over_a_single_channel_it_is_a_constant(name: str, text: str) -> None:
    (activation,) = [activation for activation in REGISTRATIONS if activation.name == name]
    assert str(activation.range_of({}, 1)) == text
    assert np.unique(activation.build()(LINE.reshape(-1, 1, 1, 1, 1))).tolist() == [float(text[1])]


def test_a_list_has_the_range_of_each_channel() -> None:
    ranges = resolve(["sigmoid", {"name": "bounded", "low": 2, "high": 3}, "none"], 3).ranges
    assert [str(interval) for interval in ranges] == ["[0, 1]", "[2, 3]", "(-inf, inf)"]


class TestInterval:
    @pytest.mark.parametrize(
        ("interval", "text"),
        [
            (Interval(), "(-inf, inf)"),
            (Interval(0.0), "[0, inf)"),
            (Interval(-1.5, 2.0), "[-1.5, 2]"),
            (Interval(1, 1), "{1}"),
            (Interval(-1024, 1234567), "[-1024, 1234567]"),
        ],
    )
    def test_is_written_as_in_mathematics(self, interval: Interval, text: str) -> None:
        assert str(interval) == text

    def test_contains_its_ends(self) -> None:
        assert all(number in Interval(0, 1) for number in (0, 0.5, 1))
        assert not any(number in Interval(0, 1) for number in (-1e-9, 1 + 1e-9, math.nan))

    @pytest.mark.parametrize("ends", [(1, 0), (math.nan, 0), (0, math.nan)])
    def test_holds_a_number(self, ends: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="holds no number"):
            Interval(*ends)
