"""From config value to specification."""

import pytest
import yaml

from p3d_regression import ConfigError
from p3d_regression.activations.spec import parse


def read(text: str) -> object:
    """What a config holds if it says ``final_activation: text``."""
    return yaml.safe_load(f"final_activation: {text}")["final_activation"]


@pytest.mark.parametrize("text", ["softplus", "' softplus '", "{name: softplus}"])
def test_a_name(text: str) -> None:
    (term,) = parse(read(text)).terms
    assert (term.name.strip(), term.place, term.arguments) == ("softplus", "model.final_activation", {})


@pytest.mark.parametrize("text", ["null", "~", "", "{name: null}", "none"])
def test_nothing_after_the_colon_is_none(text: str) -> None:
    assert [term.name for term in parse(read(text)).terms] == ["none"]


def test_a_mapping_carries_arguments() -> None:
    (term,) = parse(read("{name: softplus, beta: 2, threshold: [1]}")).terms
    assert term.arguments == {"beta": 2, "threshold": [1]}


def test_a_list_has_one_entry_per_channel_of_either_kind() -> None:
    spec = parse(read("[sigmoid, {name: softplus, beta: 2}, null]"), channels=3)
    assert spec.per_channel
    assert [term.name for term in spec.terms] == ["sigmoid", "softplus", "none"]
    assert [term.place for term in spec.terms] == [f"model.final_activation[{i}]" for i in range(3)]
    assert not parse("sigmoid").per_channel


def fixed(text: str, channels: int | None = None) -> object:
    """What a value becomes with the fix of its error."""
    config = {"model": {"final_activation": read(text)}}
    with pytest.raises(ConfigError) as caught:
        parse(config["model"]["final_activation"], channels)
    value = caught.value.found.fix.applied_to(config)["model"]["final_activation"]
    parse(value, channels)
    return value


@pytest.mark.parametrize(
    ("text", "shown", "hint"),
    [
        ("false", ": False", "for no activation write none"),
        ("no", ": False", "YAML reads no, off and false"),
        ("true", ": True", "is a boolean"),
        ("0", ": 0", "is a number"),
        ("1.5", ": 1.5", "is a number"),
        (".nan", ": nan", "is a number"),
        ("[]", ": []", "is an empty list"),
        ("[[none]]", "[0]: ['none']", "is a list"),
        ("[none, 3]", "[1]: 3", "is a number"),
        ("{}", ": {}", "is a mapping without the key name."),
        ("{beta: 2}", ": {'beta': 2}", "is a mapping without the key name."),
        ("{bounded: {low: 0, high: 7}}", "", "final_activation: {name: bounded, low: 0, high: 7}"),
        ("{softplus}", "", "Write:\n  model:\n    final_activation: softplus"),
        ("{type: bounded, low: 0, high: 7}", "", "write name instead of type. Allowed"),
        ("{Name: bounded, low: 0, high: 7}", "", "write name instead of Name. Allowed"),
        ("{name: {name: none}}", ".name: {'name': 'none'}", "is a mapping"),
        ("{name: [none]}", ".name: ['none']", "is a list"),
        ("{name: none, 3: 4}", "", "has the key 3"),
        ("2026-01-01", ": datetime.date(2026, 1, 1)", "is a date"),
        ("!!set {none}", ": {'none'}", "is a set"),
        ("'sigmoid, none'", ": 'sigmoid, none'", "a list of activations is written in brackets"),
    ],
)
def test_other_forms_are_refused(text: str, shown: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(read(text))
    message = str(caught.value)
    assert message.startswith(f"model.final_activation{shown}")
    assert hint in message
    assert "Allowed: a name, such as softplus; a name with arguments" in message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", "none"),
        ("3", "none"),
        ("[none, 3]", ["none", "none"]),
        ("[softplus, [none]]", ["softplus", "none"]),
        ("{}", "none"),
        ("{softplus: {beta: 2}}", {"name": "softplus", "beta": 2}),
        ("{softplus}", "softplus"),
        ("[{softplus: {beta: 2}}, none]", [{"name": "softplus", "beta": 2}, "none"]),
        ("{type: bounded, low: 0, high: 7}", {"name": "bounded", "low": 0, "high": 7}),
        ("{name: softplus, 3: 4, beta: 2}", {"name": "softplus", "beta": 2}),
        ("{name: [none]}", "none"),
        ("[softplus]", "softplus"),
        ("[softplus, none, none]", ["softplus", "none"]),
        ("softplus, none", ["softplus", "none"]),
        ("softplus, none, tanh", ["softplus", "none"]),
    ],
)
def test_a_fix_keeps_what_the_user_has_written(text: str, value: object) -> None:
    assert fixed(text, 2) == value


def test_a_fix_for_a_missing_entry_adds_one() -> None:
    assert fixed("[softplus, tanh]", 3) == ["softplus", "tanh", "none"]


def test_a_list_of_another_length_than_the_channels() -> None:
    with pytest.raises(ConfigError, match=r"has 2 entries, model\.out_channels is 3; a list has one entry per output"):
        parse(["none", "none"], channels=3)
    with pytest.raises(ConfigError, match=r"has 1 entry, model\.out_channels is 2"):
        parse(["none"], channels=2)
    # refused before its entries are looked at
    with pytest.raises(ConfigError, match="has 10000000 entries"):
        parse([0] * 10_000_000, channels=2)


def test_a_list_that_contains_itself() -> None:
    with pytest.raises(ConfigError, match=r"model\.final_activation\[0\]: \[\[.*is a list"):
        parse(yaml.safe_load("&a [*a]"))


def test_the_example_in_the_message_is_valid() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(3)
    example = yaml.safe_load(str(caught.value).split("Write:\n")[1])
    assert [term.name for term in parse(example["model"]["final_activation"]).terms] == ["none"]


def test_a_huge_value_gives_a_short_message() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"x" * 100_000: {"y" * 100_000: "z" * 100_000}})
    assert len(str(caught.value)) < 1000


def test_config_errors_are_value_errors() -> None:
    assert issubclass(ConfigError, ValueError)
