"""From the value of ``target_scaling`` to a specification."""

import numpy as np
import pytest
import yaml

from p3d_regression import ConfigError
from p3d_regression.scaling.spec import check_company, parse
from p3d_regression.scaling.terms import IDENTITY, Numbers


def read(text: str) -> object:
    """What a config holds if it says ``target_scaling: text``."""
    return yaml.safe_load(f"target_scaling: {text}")["target_scaling"]


@pytest.mark.parametrize("text", ["standardize", "Standardise", "' standardize '"])
def test_what_is_measured_is_left_open(text: str) -> None:
    spec = parse(read(text), 2)
    assert spec.terms == (None, None)
    assert spec.is_measured


@pytest.mark.parametrize("text", ["none", "", "null", "None"])
def test_none_is_said_too(text: str) -> None:
    spec = parse(read(text), 2)
    assert spec.terms == (IDENTITY, IDENTITY)
    assert not spec.is_measured


@pytest.mark.parametrize(
    "text",
    [
        "{mean: [1, 1], std: [2.5, 2.5]}",
        "{mean: 1, std: [2.5, 2.5]}",
        "{mean: 1, std: 2.5}",
        "[{mean: 1, std: 2.5}, {std: 2.5, mean: 1.0}]",
    ],
)
def test_numbers_for_all_channels_or_each(text: str) -> None:
    assert parse(read(text), 2).terms == (Numbers(1.0, 2.5), Numbers(1.0, 2.5))


def test_a_list_may_mix() -> None:
    assert parse(read("[none, standardize, {mean: 0, std: 4}]"), 3).terms == (IDENTITY, None, Numbers(0.0, 4.0))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("standardized", "'standardized' is not known; did you mean standardize?"),
        ("yes", "True is a boolean"),
        ("13", "13 is not understood"),
        ("{mean: 1}", "has no std"),
        ("{}", "has no mean and no std"),
        ("{mean: 1, std: 2, median: 3}", "has the key 'median'"),
        (
            "{mean: 1, std: 1e-3}",
            "model.target_scaling.std: '1e-3' is not a number (YAML reads it as a text; write 0.001).",
        ),
        ("{mean: 1, std: 0}", "model.target_scaling.std: 0 is not above 0"),
        ("{mean: 1, std: -2}", "model.target_scaling.std: -2 is not above 0"),
        ("{mean: .nan, std: 2}", "model.target_scaling.mean: nan is too large for the network, or not a finite number"),
        ("{mean: 1, std: .inf}", "model.target_scaling.std: inf is too large for the network, or not a finite number"),
        ("{mean: 1, std: 1.0e+39}", "model.target_scaling.std: 1e+39 is too large for the network"),
        (f"{{mean: {10**400}, std: 2}}", "is too large for the network"),
        ("{mean: true, std: 2}", "model.target_scaling.mean: True is not a number"),
        ("{mean: [1, 2, 3], std: 1}", "model.target_scaling.mean: [1, 2, 3] has 3 entries, model.out_channels is 2"),
        ("[standardize]", "has 1 entry, model.out_channels is 2"),
        ("[standardize, mean]", "model.target_scaling[1]: 'mean' is not known"),
        ("[standardize, {mean: 1, std: 0}]", "model.target_scaling[1].std: 0 is not above 0"),
    ],
)
def test_what_is_not_understood_says_what_is_allowed(text: str, why: str) -> None:
    message, _ = refused(text)
    assert message.startswith("model.target_scaling")
    assert why in message
    assert "Allowed: standardize (" in message


def refused(text: str) -> tuple[str, object]:
    """The message about a value, and what its fix makes of it, which works."""
    config = {"model": {"target_scaling": read(text)}}
    with pytest.raises(ConfigError) as caught:
        parse(config["model"]["target_scaling"], 2)
    fixed = caught.value.found.fix.applied_to(config)["model"]["target_scaling"]
    parse(fixed, 2)
    return str(caught.value), fixed


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("standardized", "standardize"),
        ("no", "none"),
        ("13", "standardize"),
        ("{mean: 1, std: 2, median: 3}", {"mean": 1, "std": 2}),
        ("{mean: 1, std: 1e-3}", {"mean": 1, "std": 0.001}),
        ("{mean: [1, 2], std: [3, 4e0]}", {"mean": [1, 2], "std": [3, 4.0]}),
        ("{mean: 7, std: -2}", {"mean": 7, "std": 2.0}),
        ("{mean: 7, std: 0}", {"mean": 7, "std": 1.0}),
        ("{mean: .nan, std: 2}", {"mean": 0.0, "std": 2}),
        ("{mean: [1, 2, 3], std: 1}", {"mean": [1, 2], "std": 1}),
        ("[{mean: 1, std: 2}]", {"mean": 1, "std": 2}),
        ("[standardize, none, none]", ["standardize", "none"]),
        ("[standardize, nome]", ["standardize", "none"]),
        ("[standardize, {mean: 1, std: -3}]", ["standardize", {"mean": 1, "std": 3.0}]),
    ],
)
def test_a_fix_keeps_what_the_user_has_written(text: str, fixed: object) -> None:
    assert refused(text)[1] == fixed


def test_numbers_are_those_of_float32() -> None:
    """So that a line of the log is equal to what it was made of."""
    (found,) = parse({"mean": 0.123456789012, "std": np.float64(13)}, 1).terms
    assert found == Numbers(0.12345679, 13.0)
    assert parse({"mean": float(f"{found.mean:.9g}"), "std": 13}, 1).terms == (found,)


def test_it_scales_what_is_named_beside_it() -> None:
    check_company({"name": "UNet3D"})
    check_company({"target_scaling": "standardize", "final_activation": "none"})
    config = {"model": {"target_scaling": "standardize", "is_segmentation": False}}
    with pytest.raises(ConfigError, match=r"the config has no line model\.final_activation") as caught:
        check_company(config["model"])
    check_company(caught.value.found.fix.applied_to(config)["model"])
