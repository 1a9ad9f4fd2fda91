"""From config value to specification."""

import pytest
import yaml

from p3d_regression import ConfigError
from p3d_regression.activations.ranges import REAL_LINE, Interval
from p3d_regression.activations.spec import NONE, parse


@pytest.mark.parametrize(
    "text", ["none", "None", "NONE", "identity", "Identity", "linear", "Linear", "null", "Null", "~", "", " none "]
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
