"""What is known of a model's last layer from its section, and from the model itself: the same."""

import itertools
from typing import Any

import pytest
from pytorch3dunet.unet3d.model import get_model

from p3d_regression.activations.registry import resolve
from p3d_regression.checks.view import View
from p3d_regression.interval import REAL_LINE, UNIT, Interval
from p3d_regression.model.last_layer import UPSTREAM, LastLayer, contradiction, last_layer, of_model

NAMES = ["UNet3D", "ResidualUNet3D", "ResidualUNetSE3D", "UNet2D", "ResidualUNet2D"]
SAID = [
    {key: value for key, value in zip(("is_segmentation", "final_sigmoid"), values, strict=True) if value is not None}
    for values in itertools.product((None, True, False, 0, "false"), repeat=2)
]


def section(name: str = "UNet3D", channels: int = 1, **more: object) -> dict[str, Any]:
    return {"name": name, "in_channels": 1, "out_channels": channels, "f_maps": [8, 16], "num_groups": 4, **more}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_section_has_the_last_layer_of_the_model_that_it_builds(name: str, channels: int) -> None:
    for said in SAID:
        model = section(name, channels, **said)
        found = last_layer(model, channels)
        assert len(found.ranges) == channels
        assert of_model(get_model(model), 0) == LastLayer(found.name, found.ranges[:1])
        assert View({"model": model}, "train").last_layer == found


@pytest.mark.parametrize(("name", "ranges"), [("none", REAL_LINE), ("sigmoid", UNIT), ("softmax", Interval(1.0, 1.0))])
def test_upstreams_own(name: str, ranges: Interval) -> None:
    assert last_layer(UPSTREAM[name], 1) == LastLayer(name, (ranges,))
    assert last_layer(UPSTREAM[name], 1).is_segmentation is (name != "none")


def test_of_this_project() -> None:
    final = resolve(["none", {"name": "bounded", "low": 0, "high": 70}], 2)
    model = get_model(section(channels=2, final_activation=final.plain))
    assert last_layer({}, 2, final) == LastLayer(str(final), (REAL_LINE, Interval(0, 70)), is_ours=True)
    assert of_model(model, 1) == LastLayer("{name: bounded, low: 0.0, high: 70.0}", (Interval(0, 70),), is_ours=True)


@pytest.mark.parametrize("value", ["none", "sigmoid", "softmax", "softplus"])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_contradiction_is_gone_after_its_fix(value: str, scaled: bool) -> None:
    for said in SAID:
        model = section(
            channels=2, final_activation=value, **({"target_scaling": "standardize"} if scaled else {}), **said
        )
        found = contradiction(model, resolve(value, 2))
        upstreams = last_layer(model, 2).name
        assert (found is not None) == (bool(said) and upstreams not in ("none", value))
        if found is not None:
            changed = found.fix.applied_to({"model": model})["model"]
            assert contradiction(changed, resolve(value, 2)) is None
            assert changed["final_activation"] == value
            assert (changed.get("is_segmentation") is False) == (value == "none" and not scaled)
