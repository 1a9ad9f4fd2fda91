"""Zarr arrays as volumes of axes (Z, Y, X) or (C, Z, Y, X), in whatever order they are stored.

Axes, resolution levels and the size of voxels come from the metadata of OME-Zarr (0.4 in Zarr v2, 0.5 in Zarr v3:
https://ngff.openmicroscopy.org), else from the names of dimensions, else from their number.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise
from p3d_regression.volumes.axes import ALL, BY_NUMBER, ArrayVolume
from p3d_regression.volumes.geometry import spacing_of, units_of

#: Metadata files of an array or a group.
_METADATA = ("zarr.json", ".zarray", ".zgroup")


def package() -> Any:
    """The package zarr.

    Raises:
        ConfigError: it is missing, or too old.
    """
    try:
        import zarr
    except ImportError as error:
        install = advise('install it with: pip install "p3d-regression[zarr]"')
        raise ConfigError("", "Zarr volumes need the package zarr, version 3.", install) from error
    numbers = [int(part) for part in zarr.__version__.split(".")[:3] if part.isdigit()]
    # before, worker processes of a DataLoader may wait for ever
    if numbers < [3, 0, 8]:
        advice = advise('pip install "zarr>=3.0.8"')
        raise ConfigError("", f"Zarr volumes need zarr 3.0.8; {zarr.__version__} is installed.", advice)
    return zarr


def is_zarr(path: Path) -> bool:
    """Whether a directory is an array or a group of Zarr."""
    return any((path / name).is_file() for name in _METADATA)


def metadata_file(path: Path, key: str) -> Path:
    """The file with the metadata of an array or a group; the directory, where there is none."""
    directory = path / key.strip("/")
    return next((directory / name for name in _METADATA if (directory / name).is_file()), path)


def paths(given: Sequence[str], key: str) -> list[str]:
    """The paths of volumes, where a directory may hold several of them.

    Args:
        given: paths of a config.
        key: what is read from each volume: a directory that has it is a volume itself.
    """
    found = []
    for path in given:
        directory = Path(path)
        is_volume = not directory.is_dir() or is_zarr(directory) or (directory / str(key).strip("/")).exists()
        children = [] if is_volume else [child for child in sorted(directory.iterdir()) if is_zarr(child)]
        # predictions may lie next to them
        inside = [str(child) for child in children if (child / str(key).strip("/")).exists()]
        found += inside or [path]
    return found


class Store:
    """A directory with Zarr arrays: a group, or a plain directory of several.

    Args:
        path: of the directory.

    Raises:
        ConfigError: the package zarr is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self._zarr, self._root = package(), Path(path)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def get(self, key: object) -> ArrayVolume | None:
        """A volume by its name; None if there is none."""
        try:
            return self[key]
        except KeyError:
            return None

    def __getitem__(self, key: object) -> ArrayVolume:
        """A volume by its name.

        Args:
            key: path of an array; or of an OME-Zarr image, whose finest resolution level is taken.

        Raises:
            KeyError: there is none.
            ValueError: it has axes that are no volume.
        """
        name = str(key).strip("/")
        node = self._node(name)
        if node is None:
            raise KeyError(f"{self._root} has no array {name!r}")
        if hasattr(node, "ndim"):
            return _volume(node, *self._described(name))
        for image in _images(node.attrs):
            level = image["datasets"][0]
            return _volume(node[level["path"]], image, level)
        raise KeyError(f"{name!r} in {self._root} is a group without an image; its arrays are: {self.names()}")

    def _node(self, name: str) -> Any:
        if not is_zarr(self._root / name):
            return None
        return self._zarr.open(store=str(self._root), path=name, mode="r")

    def _described(self, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The OME-Zarr image that an array is a level of, and this level; empty if there is none."""
        parts = name.split("/") if name else []
        for end in range(len(parts) - 1, -1, -1):
            parent = self._node("/".join(parts[:end]))
            for image in _images(parent.attrs) if parent is not None else ():
                for level in image["datasets"]:
                    if str(level["path"]).strip("/") == "/".join(parts[end:]):
                        return image, level
        return {}, {}

    def is_finest(self, name: str) -> bool:
        """Whether an array is the finest resolution level of an image, or belongs to none."""
        image, level = self._described(name)
        return not image or level == image["datasets"][0]

    def names(self) -> list[str]:
        """The names of all arrays."""
        return [str(path.relative_to(self._root)) for path in sorted(_arrays(self._root))]


def finest(store: Store) -> list[str]:
    """The names of all arrays, of an OME-Zarr image only the finest resolution level."""
    return [name for name in store.names() if store.is_finest(name)]


def _arrays(directory: Path) -> Iterator[Path]:
    if _is_array(directory):
        yield directory
        return
    for child in directory.iterdir():
        if child.is_dir():
            yield from _arrays(child)


def _is_array(directory: Path) -> bool:
    if (directory / ".zarray").is_file():
        return True
    with suppress(OSError, ValueError):
        held = json.loads((directory / "zarr.json").read_text(encoding="utf-8"))
        return bool(held.get("node_type") == "array")
    return False


def _images(attributes: Any) -> list[Mapping[str, Any]]:
    """The images that a group describes."""
    held = attributes.get("ome", attributes)
    found = held.get("multiscales") if isinstance(held, Mapping) or hasattr(held, "get") else None
    return [image for image in found or [] if image.get("datasets")]


def _volume(array: Any, image: Mapping[str, Any], level: Mapping[str, Any]) -> ArrayVolume:
    """An array as a volume, with ``voxel_size`` and ``axis_units`` (Z, Y, X) where OME-Zarr gives them.

    Args:
        array: of the package zarr.
        image: what OME-Zarr says of the image that it belongs to; empty if nothing.
        level: what that says of the resolution level.

    Raises:
        ValueError: it has several points in time, or other axes.
    """
    axes = _axes_of(array, image)
    return ArrayVolume(
        array,
        axes,
        name=f"{array.store_path} ",
        chunks=array.shards or array.chunks,
        attrs={**_size_of_voxels(axes, image, level), **dict(array.attrs)},
    )


def _axes_of(array: Any, image: Mapping[str, Any]) -> str:
    """One letter for each axis of an array."""
    named = [axis.get("name") if isinstance(axis, Mapping) else axis for axis in image.get("axes") or ()]
    named = named or list(getattr(array.metadata, "dimension_names", None) or ()) or array.attrs.get(_XARRAY) or []
    if not named or any(name is None or str(name).startswith("dim") for name in named):
        if array.ndim not in BY_NUMBER:
            raise ValueError(f"{array.store_path} has {array.ndim} axes, and is no volume")
        return BY_NUMBER[array.ndim]
    letters = [_NAMES.get(str(name).lower(), str(name).lower()) for name in named]
    if len(set(letters)) < array.ndim or not {"y", "x"} <= set(letters) <= set(ALL) or len(letters) != array.ndim:
        raise ValueError(
            f"{array.store_path} has the axes {', '.join(map(str, named))}; a volume has z, y, x and perhaps c and t"
        )
    return "".join(letters)


#: Other names of axes.
_NAMES = {"time": "t", "channel": "c", "channels": "c", "ch": "c", "depth": "z", "height": "y", "width": "x"}

#: The attribute in which xarray names the dimensions of arrays in Zarr v2.
_XARRAY = "_ARRAY_DIMENSIONS"


def _size_of_voxels(axes: str, image: Mapping[str, Any], level: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that OME-Zarr adds: the scale of a level, times that of the image."""
    scale = np.ones(len(axes))
    found = False
    for step in (*(level.get("coordinateTransformations") or ()), *(image.get("coordinateTransformations") or ())):
        if step.get("type") == "scale" and len(step.get("scale") or ()) == len(axes):
            scale, found = scale * np.asarray(step["scale"], float), True
    sizes = dict(zip(axes, scale.tolist(), strict=True))
    if not found or "z" not in sizes:
        return {}
    held = {axis.get("name"): axis.get("unit") for axis in image.get("axes") or () if isinstance(axis, Mapping)}
    units = [held.get(axis) for axis in "zyx"]
    return {"voxel_size": [sizes[axis] for axis in "zyx"]} | ({"axis_units": units} if all(units) else {})


def set_attribute(path: str | Path, key: str, name: str, value: Any) -> None:
    """Write an attribute of an array."""
    package().open(store=str(path), path=key.strip("/"), mode="r+").attrs[name] = value


def image_attributes(name: str, dataset: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A group with an array (C, Z, Y, X) as an OME-Zarr 0.5 image, so that viewers know its axes and voxel size.

    Args:
        name: of the image.
        dataset: name of the array.
        attributes: of the volume, with ``voxel_size`` and ``axis_units`` if they are known.
    """
    spacing = spacing_of(attributes) or [1.0, 1.0, 1.0]
    units = [{"unit": unit} for unit in units_of(attributes) or ()] or [{}] * 3
    axes = [
        {"name": "c", "type": "channel"},
        *({"name": axis, "type": "space", **unit} for axis, unit in zip("zyx", units, strict=True)),
    ]
    scale = {"type": "scale", "scale": [1.0, *spacing]}
    level = {"path": dataset, "coordinateTransformations": [scale]}
    return {"ome": {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": [level]}]}}


def plain(value: Any) -> Any:
    """An attribute as JSON has it."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
