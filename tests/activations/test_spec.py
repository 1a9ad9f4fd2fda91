"""From config value to specification."""

import inspect

import pytest
import yaml
from pytorch3dunet.unet3d.model import AbstractUNet

from p3d_regression import ConfigError
from p3d_regression.activations.ranges import REAL_LINE, Interval
from p3d_regression.activations.spec import NONE, check_keys, check_sections, parse


@pytest.mark.parametrize(
    "text",
    ["none", "None", "NONE", "identity", "Identity", "linear", "Linear", "null", "Null", "'null'", "~", "", " none "],
)
def test_every_spelling_of_none_in_yaml(text: str) -> None:
    assert parse(yaml.safe_load(f"final_activation: {text}")["final_activation"]) == NONE


@pytest.mark.parametrize(
    ("text", "shown", "hint"),
    [
        ("nome", "'nome'", "did you mean none?"),
        ("identiti", "'identiti'", "did you mean identity?"),
        ("Liner", "'Liner'", "did you mean linear?"),
        ("swish", "'swish'", "for unbounded values write none"),
        ("leaky_relu", "'leaky_relu'", "for unbounded values write none"),
        ("sigmoid", "'sigmoid'", "leave the key out for it and write final_sigmoid: true"),
        ("Softmax", "'Softmax'", "leave the key out for it and write final_sigmoid: false"),
        ("''", "''", "for unbounded values write none"),
        ("false", "False", "for no activation write none"),
        ("no", "False", "YAML reads no, off and false"),
        ("true", "True", "is a boolean"),
        ("0", "0", "is a number"),
        ("1.5", "1.5", "is a number"),
        ("[]", "[]", "is a list"),
        ("[none]", "['none']", "is a list"),
        ("{name: {name: none}}", "{'name': {'name': 'none'}}", "is a mapping"),
        ("2026-01-01", "datetime.date(2026, 1, 1)", "is a date"),
    ],
)
def test_what_is_not_understood(text: str, shown: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_load(f"final_activation: {text}")["final_activation"])
    message = str(caught.value)
    assert message.startswith(f"model.final_activation: {shown} ")
    assert hint in message
    assert "Allowed: none (also written identity, linear or null)." in message


def test_the_example_in_the_message_is_valid() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("nome")
    example = yaml.safe_load(str(caught.value).split("Example:\n")[1])
    assert parse(example["model"]["final_activation"]) == NONE


def test_a_huge_value_gives_a_short_message() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("x" * 100_000)
    assert len(str(caught.value)) < 500


def test_config_errors_are_value_errors() -> None:
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize(
    ("interval", "text"),
    [(REAL_LINE, "(-inf, inf)"), (Interval(0.0), "[0, inf)"), (Interval(-1.5, 2.0), "[-1.5, 2]")],
)
def test_ranges_are_written_as_intervals(interval: Interval, text: str) -> None:
    assert str(interval) == text


@pytest.mark.parametrize(
    "key", ["final_activaton", "Final_activation", "final-activation", "finalActivation", "final_activations"]
)
def test_a_misspelled_key_is_not_left_to_upstream_which_ignores_it(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^model.{key}: upstream ignores this key; did you mean final_activation"):
        check_keys({"name": "UNet3D", key: "none"})


def test_upstreams_own_keys_are_not_taken_for_ours() -> None:
    parameters = inspect.signature(AbstractUNet.__init__).parameters
    check_keys([*parameters, "name", "activation", "final_conv", 3, None])


@pytest.mark.parametrize("config", [{"final_activation": "none", "model": {}}, {"trainer": {"final_activation": None}}])
def test_a_misplaced_key_is_refused(config: dict[object, object]) -> None:
    with pytest.raises(ConfigError, match="nothing reads this key here; move it into the section model"):
        check_sections(config)


def test_the_right_place_is_fine() -> None:
    check_sections({"model": {"final_activation": "none"}, "loaders": None, 3: []})
