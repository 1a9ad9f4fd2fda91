"""Keys that are almost plugin keys, and pytorch-3dunet would ignore."""

import inspect

import pytest
from pytorch3dunet.unet3d.model import AbstractUNet

from p3d_regression import ConfigError
from p3d_regression.keys import check_keys, check_sections


@pytest.mark.parametrize(
    "key", ["final_activaton", "Final_activation", "final-activation", "finalActivation", "final_activations"]
)
def test_a_misspelled_key_is_not_left_to_upstream_which_ignores_it(key: str) -> None:
    config = {"model": {"name": "UNet3D", key: "softplus"}}
    message = f"^model.{key}: pytorch-3dunet ignores this key; did you mean final_activation"
    with pytest.raises(ConfigError, match=message) as caught:
        check_keys(config["model"])
    assert caught.value.found.fix.applied_to(config) == {"model": {"name": "UNet3D", "final_activation": "softplus"}}
    # the right key counts where both are there
    config["model"]["final_activation"] = "none"
    with pytest.raises(ConfigError) as caught:
        check_keys(config["model"])
    assert caught.value.found.fix.applied_to(config) == {"model": {"name": "UNet3D", "final_activation": "none"}}


def test_the_line_to_write_keeps_the_value() -> None:
    with pytest.raises(ConfigError) as caught:
        check_keys({"target_scalng": {"mean": 1, "std": 2}})
    assert str(caught.value) == (
        "model.target_scalng: pytorch-3dunet ignores this key; did you mean target_scaling? Write:\n"
        "  model:\n    # delete target_scalng\n    target_scaling: {mean: 1, std: 2}"
    )


def test_upstreams_own_keys_are_not_taken_for_ours() -> None:
    parameters = inspect.signature(AbstractUNet.__init__).parameters
    check_keys(dict.fromkeys([*parameters, "name", "activation", "final_conv", 3, None]))


@pytest.mark.parametrize(
    ("config", "place", "fixed"),
    [
        ({"final_activation": "tanh", "model": {}}, "final_activation", {"model": {"final_activation": "tanh"}}),
        (
            {"trainer": {"final_activation": None}},
            "trainer.final_activation",
            {"trainer": {}, "model": {"final_activation": None}},
        ),
        (
            {"trainer": {"target_scaling": "standardize"}, "model": {"target_scaling": "none"}},
            "trainer.target_scaling",
            {"trainer": {}, "model": {"target_scaling": "none"}},
        ),
    ],
)
def test_a_misplaced_key_is_moved_with_its_value(config: dict[object, object], place: str, fixed: object) -> None:
    with pytest.raises(ConfigError, match=f"^{place}: nothing reads this key here; move it") as caught:
        check_sections(config)
    assert caught.value.found.fix.applied_to(config) == fixed


def test_the_right_place_is_fine() -> None:
    check_sections({"model": {"final_activation": "none"}, "loaders": None, 3: []})
