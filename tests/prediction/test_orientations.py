"""Test-time augmentation, with networks that are known to turn with their input, or not to."""

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d.config import TorchDevice
from pytorch3dunet.unet3d.predictor import StandardPredictor

from p3d_regression import ConfigError
from p3d_regression.prediction.orientations import orientations_of
from p3d_regression.prediction.spec import Tta, options_of
from support.volumes import loader_of, net, write_volume

PATCH = [8, 16, 16]


class Gradient(torch.nn.Module):
    """Differences along Z, Y and X: a vector field, which turns with the volume."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.roll(x, -1, 2 + axis) - torch.roll(x, 1, 2 + axis) for axis in range(3)], dim=1)


def predicted(path: Path, model: Any, channels: int, tta: object, patch: list[int] | None = None) -> dict[str, Any]:
    loader = loader_of(path, patch or PATCH, patch or PATCH, [0, 0, 0])
    StandardPredictor(model, str(path.parent), channels, TorchDevice.CPU, tta=tta)(loader)
    with h5py.File(path.parent / "volume_predictions.h5") as file:
        return {name: (file[name][()], dict(file[name].attrs)) for name in file}


@pytest.mark.parametrize(("name", "number"), [("flips", 8), ("rotations", 16)])
def test_mean_and_spread_by_hand(name: str, number: int, tmp_path: Path) -> None:
    raw = write_volume(tmp_path / "volume.h5", tuple(PATCH))
    model = net(2)
    found = predicted(tmp_path / "volume.h5", model, 2, name)
    seen = (raw - 0.5) / 2
    outputs = []
    for swaps, *flips in itertools.product((False, True), repeat=4):
        if swaps and name == "flips":
            continue
        axes = [axis + 1 for axis, is_flipped in enumerate(flips) if is_flipped]
        turned = np.flip(seen.transpose(0, 2, 1) if swaps else seen, [axis - 1 for axis in axes])
        with torch.no_grad():
            output = model(torch.from_numpy(turned.copy())[None, None])[0].numpy()
        output = np.flip(output, axes)
        outputs.append(output.transpose(0, 1, 3, 2) if swaps else output)
    assert len(outputs) == number
    assert np.abs(outputs[0] - outputs[-1]).max() > 1e-3
    np.testing.assert_allclose(found["predictions"][0], np.mean(outputs, 0), atol=1e-6)
    np.testing.assert_allclose(found["spread"][0], np.std(outputs, 0), atol=1e-6)
    assert "standard deviation" in found["spread"][1]["description"]


@pytest.mark.parametrize("name", ["flips", "rotations"])
def test_components_of_vectors_turn_with_the_volume(name: str, tmp_path: Path) -> None:
    patch = [16, 16, 16]
    write_volume(tmp_path / "volume.h5", (16, 16, 16), element_size_um=[1.0, 1.0, 1.0])
    plain = predicted(tmp_path / "volume.h5", Gradient(), 3, None, patch)
    directions = {"z": 0, "y": 1, "x": 2}
    turned = predicted(tmp_path / "volume.h5", Gradient(), 3, {"name": name, "directions": directions}, patch)
    np.testing.assert_allclose(turned["predictions"][0], plain["predictions"][0], atol=1e-6)
    assert turned["spread"][0].max() < 1e-6
    # without the signs the components cancel each other
    assert np.abs(predicted(tmp_path / "volume.h5", Gradient(), 3, "flips", patch)["predictions"][0]).max() < 1e-6


def test_which_axes_are_exchanged() -> None:
    every, flips = Tta(rotates=True), Tta(rotates=False)
    cube = [16, 16, 16]
    assert len(orientations_of(every, cube, [1, 1, 1])) == 48
    assert len(orientations_of(every, cube, [2, 1, 1])) == len(orientations_of(every, cube, None)) == 16
    assert len(orientations_of(flips, cube, [1, 1, 1])) == 8
    # mirroring one plane along Z does nothing
    assert len(orientations_of(flips, [1, 16, 16], None)) == 4
    assert len(orientations_of(None, cube, None)) == 1
    with pytest.raises(ConfigError, match=r"^predictor\.tta: rotations exchanges axes, but no two axes"):
        orientations_of(every, [4, 16, 32], None)
    for orientation in orientations_of(every, cube, [1, 1, 1]):
        patches = torch.rand(2, 1, 4, 4, 4)
        torch.testing.assert_close(orientation.back(orientation.turn(patches)), patches, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("flip", "predictor.tta"),
        (8, "predictor.tta"),
        ({"directions": {"z": 0}}, "predictor.tta"),
        ({"name": "flips", "direction": {"z": 0}}, "predictor.tta.direction"),
        ({"name": "flips", "directions": {"z": 0, "y": 0}}, "predictor.tta.directions"),
        ({"name": "flips", "directions": {"t": 0}}, "predictor.tta.directions"),
        ({"name": "flips", "directions": [0, 1, 2]}, "predictor.tta.directions"),
        ({"name": "rotations", "directions": {"x": 0}}, "predictor.tta.directions"),
    ],
)
def test_what_is_no_tta(value: object, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options_of({"tta": value})
    assert caught.value.found.key == key
    fixed = caught.value.found.fix.applied_to({"predictor": {"tta": value}})["predictor"]
    assert options_of(fixed) is not None
