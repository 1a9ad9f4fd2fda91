"""Zarr arrays in every order of axes, with and without metadata, as one kind of volume."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from p3d_regression.volumes.opening import find, names, opened, set_attribute
from p3d_regression.volumes.padding import padded_part
from p3d_regression.volumes.zarr_store import Store, paths

PLACES = [(), ..., slice(1, 3), (..., slice(2, 4)), (0, slice(1, 2)), (..., 1), (slice(1, 3), slice(0, 2), slice(3, 5))]


def write_image(directory: Path, values: np.ndarray, axes: str, version: str, **image: Any) -> None:
    """An OME-Zarr image with two resolution levels of which the second one is 2 x 2 x 2 voxels smaller."""
    group = zarr.create_group(str(directory), zarr_format=3 if version == "0.5" else 2)
    levels = []
    for name, step in (("fine", 1), ("coarse", 2)):
        part = values[tuple(slice(None, None, step if axis in "zyx" else 1) for axis in axes)]
        array = group.create_array(name, shape=part.shape, chunks=tuple(min(4, n) for n in part.shape), dtype="f4")
        array[...] = part
        scale = [step * {"z": 2.0, "y": 0.5, "x": 0.25}.get(axis, 1.0) for axis in axes]
        levels.append({"path": name, "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    described = [{"name": axis, "unit": "micrometer" if axis in "zyx" else None} for axis in axes]
    multiscales = [{"version": version, "axes": described, "datasets": levels, **image}]
    group.attrs.update({"ome": {"multiscales": multiscales}} if version == "0.5" else {"multiscales": multiscales})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("order", ["zyx", "czyx", "tczyx", "zcyx", "xyzc", "cyx", "yx", "ctzyx"])
def test_all_orders_of_axes(tmp_path: Path, order: str, version: str) -> None:
    sizes = {"t": 1, "c": 3, "z": 4, "y": 5, "x": 6}
    stored = np.random.default_rng(0).normal(size=[sizes[axis] for axis in order]).astype(np.float32)
    write_image(tmp_path / "a.zarr", stored, order, version)
    # by hand: t away, z there, channels first
    letters = [axis for axis in order if axis != "t"]
    wanted = stored[tuple(0 if axis == "t" else slice(None) for axis in order)]
    wanted = np.einsum(f"{''.join(letters)}->{''.join(axis for axis in 'czyx' if axis in letters)}", wanted)
    wanted = wanted if "z" in order else wanted[..., None, :, :]
    volume = Store(tmp_path)["a.zarr"]
    assert volume.shape == wanted.shape
    assert len(volume.chunks) == volume.ndim == wanted.ndim
    for place in PLACES:
        np.testing.assert_array_equal(volume[place], wanted[place], err_msg=str(place))
    if "z" in order:
        assert volume.attrs["voxel_size"] == [2.0, 0.5, 0.25]
        assert volume.attrs["axis_units"] == ["micrometer"] * 3
        coarse = Store(tmp_path)["a.zarr/coarse"]
        assert coarse.shape[-3:] == (2, 3, 3)
        assert coarse.attrs["voxel_size"] == [4.0, 1.0, 0.5]


def test_one_channel_has_no_axis(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", np.zeros((1, 1, 4, 5, 6), np.float32), "tczyx", "0.5")
    assert Store(tmp_path / "a.zarr")["fine"].shape == (4, 5, 6)


def test_the_scale_of_the_image_counts(tmp_path: Path) -> None:
    scale = {"type": "scale", "scale": [3.0, 3.0, 3.0]}
    write_image(tmp_path / "a.zarr", np.zeros((4, 5, 6), np.float32), "zyx", "0.4", coordinateTransformations=[scale])
    assert Store(tmp_path / "a.zarr")["fine"].attrs["voxel_size"] == [6.0, 1.5, 0.75]


@pytest.mark.parametrize("order", ["".join(order) for order in permutations("zyx")])
def test_names_of_dimensions(tmp_path: Path, order: str) -> None:
    sizes = {"z": 4, "y": 5, "x": 6}
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    shape = tuple(sizes[axis] for axis in order)
    group.create_array("raw", shape=shape, dtype="u2", dimension_names=tuple(order))
    assert Store(tmp_path / "a.zarr")["raw"].shape == (4, 5, 6)
    xarray = zarr.create_group(str(tmp_path / "b.zarr"), zarr_format=2).create_array("raw", shape=shape, dtype="u2")
    xarray.attrs["_ARRAY_DIMENSIONS"] = list(order)
    assert Store(tmp_path / "b.zarr")["raw"].shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (("depth", "height", "width"), (4, 5, 6)),
        (("width", "height", "depth"), (6, 5, 4)),
        (("z", "y", "x", "channel"), (2, 4, 5, 6)),
        (("time", "y", "x"), None),
        (("a", "b", "c"), None),
        (("dim_0", "dim_1", "dim_2"), (4, 5, 6)),
        ((None, None, None), (4, 5, 6)),
    ],
)
def test_other_names_of_axes(tmp_path: Path, names: Any, shape: tuple[int, ...] | None) -> None:
    stored = (4, 5, 6, 2)[: len(names)]
    array = zarr.create_group(str(tmp_path / "a.zarr")).create_array(
        "raw", shape=stored, dtype="u2", dimension_names=names
    )
    assert array.shape == stored
    if shape is None:
        with pytest.raises(ValueError, match=r"points in time|a volume has z, y, x"):
            Store(tmp_path / "a.zarr")["raw"]
    else:
        assert Store(tmp_path / "a.zarr")["raw"].shape == shape


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((2, 1, 4, 5, 6), "tczyx", "has 2 points in time"),
        ((2, 4, 5, 6), "pzyx", "has the axes p, z, y, x; a volume has z, y, x and perhaps c and t"),
    ],
)
def test_what_is_no_volume(tmp_path: Path, shape: tuple[int, ...], axes: str, message: str) -> None:
    write_image(tmp_path / "a.zarr", np.zeros(shape, np.float32), axes, "0.5")
    with pytest.raises(ValueError, match=message):
        Store(tmp_path)["a.zarr"]


class TestStores:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        for name in ("raw", "label"):
            array = zarr.create_array(str(tmp_path / "pair" / f"{name}.zarr"), shape=(4, 5, 6), dtype="f4")
            array[...] = np.arange(120).reshape(4, 5, 6)
        zarr.create_group(str(tmp_path / "many" / "a.zarr")).create_array("raw", shape=(4, 5, 6), dtype="f4")
        zarr.create_group(str(tmp_path / "many" / "b.zarr")).create_array("raw", shape=(4, 5, 6), dtype="f4")
        return tmp_path

    def test_a_plain_directory_of_arrays_is_one_volume(self, directory: Path) -> None:
        assert paths([str(directory / "pair")], "raw.zarr") == [str(directory / "pair")]
        with opened(directory / "pair") as file:
            assert names(file) == ["label.zarr", "raw.zarr"]
            assert find(file, "label.zarr")[1, 2, 3] == 45
            assert find(file, "nothing") is None
            with pytest.raises(KeyError, match="no array 'nothing'"):
                file["nothing"]

    def test_a_directory_of_volumes_is_searched(self, directory: Path) -> None:
        found = paths([str(directory / "many"), str(directory / "pair")], "raw")
        assert found == [
            str(directory / "many/a.zarr"),
            str(directory / "many/b.zarr"),
            *paths([str(directory / "pair")], "raw"),
        ]

    def test_what_lies_next_to_volumes_is_none(self, directory: Path) -> None:
        zarr.create_group(str(directory / "many" / "a_predictions.zarr")).create_array("p", shape=(4, 5, 6), dtype="f4")
        assert [Path(path).name for path in paths([str(directory / "many")], "raw")] == ["a.zarr", "b.zarr"]

    def test_attributes_can_be_added(self, directory: Path) -> None:
        set_attribute(directory / "pair", "raw.zarr", "calibration", "[1]")
        assert Store(directory / "pair")["raw.zarr"].attrs["calibration"] == "[1]"

    def test_a_damaged_array_is_an_error(self, directory: Path) -> None:
        held = directory / "pair" / "raw.zarr" / "zarr.json"
        held.write_text(json.dumps({**json.loads(held.read_text()), "shape": "?"}))
        with pytest.raises((ValueError, TypeError, OSError)):
            Store(directory / "pair")["raw.zarr"]


def test_the_halo_is_the_mirror_image(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
    write_image(tmp_path / "a.zarr", values, "czyx", "0.5")
    padded = np.pad(values, [(0, 0), (2, 2), (3, 3), (4, 4)], mode="reflect")
    for place in [(slice(0, 6), slice(0, 7), slice(0, 9)), (slice(4, 9), slice(6, 12), slice(10, 15))]:
        found = padded_part(Store(tmp_path)["a.zarr"], (slice(None), *place), (2, 3, 4))
        np.testing.assert_array_equal(found, padded[(slice(None), *place)])
