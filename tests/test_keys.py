"""Keys that are almost ours, and upstream would ignore."""

import inspect

import pytest
from pytorch3dunet.unet3d.model import AbstractUNet

from p3d_regression import ConfigError
from p3d_regression.keys import check_keys, check_sections


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
