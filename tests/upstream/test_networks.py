"""What a network on the meta device says, against the same network with weights."""

import itertools
import sys
from typing import Any

import pytest
import torch
from pytorch3dunet.unet3d.model import get_model, is_model_2d

from p3d_regression.upstream.networks import on_meta_device, output_shape

ORDERS = ["gcr", "cgl", "bcr", "cbe", "gcrD", "cgr"]
SHAPES = [(8, 32, 32), (9, 33, 35), (2, 32, 32), (1, 16, 16), (4, 4, 4)]


def really(config: dict[str, Any], shape: tuple[int, ...], *, training: bool) -> tuple[int, ...] | None:
    """The shape of the output; None where torch refuses the input."""
    try:
        model = get_model(dict(config)).train(training)
        patch = torch.zeros(1, config["in_channels"], *shape)
        with torch.no_grad():
            flat = is_model_2d(model)
            output = model(patch.squeeze(-3) if flat else patch)
    except (RuntimeError, ValueError, AssertionError):
        return None
    return tuple((output.unsqueeze(-3) if flat else output).shape[1:])


def on_meta(config: dict[str, Any], shape: tuple[int, ...], *, training: bool) -> tuple[int, ...] | None:
    try:
        return output_shape(on_meta_device(config), (config["in_channels"], *shape), training=training)
    except (RuntimeError, ValueError, AssertionError):
        return None


@pytest.mark.parametrize("name", ["UNet3D", "ResidualUNet3D", "ResidualUNetSE3D", "UNet2D"])
@pytest.mark.parametrize("order", ORDERS)
def test_says_what_the_real_one_says(name: str, order: str) -> None:
    results = []
    for upsample, shape, training in itertools.product(["default", "deconv"], SHAPES, [True, False]):
        config = {"name": name, "in_channels": 2, "out_channels": 3, "f_maps": [4, 8, 16], "num_groups": 2}
        config |= {"layer_order": order, "upsample": upsample}
        found = on_meta(config, shape, training=training)
        assert found == really(config, shape, training=training), (config, shape, training)
        results.append(found)
    assert None in results
    assert any(results)


@pytest.mark.parametrize(
    "section",
    [
        {"f_maps": [8]},
        {"f_maps": [12, 24], "num_groups": 8},
        {"layer_order": "rc"},
        {"layer_order": "gxr"},
        {"num_groups": 0},
        {"num_groups": None},
        {"dropout_prob": 2, "layer_order": "gcrd"},
        {"f_maps": "8"},
        {"f_maps": [8, "16"]},
        {"num_levels": 60},
        {"num_levels": 10**9},
        {"upsample": "cubic"},
    ],
)
def test_what_cannot_be_built_is_an_error(section: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"^"):
        output_shape(
            on_meta_device({"name": "UNet3D", "in_channels": 1, "out_channels": 1, **section}),
            (1, 8, 64, 64),
            training=True,
        )


def test_takes_no_random_number_and_no_memory() -> None:
    before = torch.get_rng_state()
    network = on_meta_device({"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": 1024, "num_levels": 6})
    assert output_shape(network, (1, 64, 4096, 4096), training=True) == (1, 64, 4096, 4096)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert torch.equal(before, torch.get_rng_state())
    assert not any(mode for mode in torch.overrides._get_current_function_mode_stack())
    assert "pytorch3dunet" in sys.modules
