"""TIFF stacks, of ImageJ, OME and others, read plane by plane."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from p3d_regression.volumes.geometry import unit_named


def read(file: Any) -> tuple[Any, str, dict[str, Any]]:
    """The image in a TIFF file: an array that is read in parts, its axes, and its attributes.

    Args:
        file: a ``tifffile.TiffFile``.

    Raises:
        ValueError: there are several images, or its axes are no volume.
    """
    first, *others = file.series
    if others and all(series.ndim == 2 and series.shape == first.shape for series in others):
        # a stack that was written plane by plane
        pages = [page for series in file.series for page in series.pages]
        return _Pages(pages, (len(pages), *first.shape)), "zyx", _attributes(file)
    if any(series.shape == first.shape for series in others):
        raise ValueError(f"has {len(file.series)} images; write each as a file of its own")
    axes = letters(first.axes, first.shape)
    # an OME-TIFF may have planes in other files
    if first.dataoffset is not None and not file.is_ome:
        mapped = np.memmap(file.filehandle.path, _dtype(file, first), "r", first.dataoffset, first.shape)
        return mapped, axes, _attributes(file)
    return _Pages(list(first.pages), first.shape), axes, _attributes(file)


def letters(named: str, shape: Sequence[int]) -> str:
    """The axes of tifffile, as those of a volume.

    >>> letters("QYX", (5, 64, 64)), letters("YXS", (64, 64, 3))
    ('zyx', 'yxc')

    Raises:
        ValueError: they are not.
    """
    found = named.lower()
    for unknown in "qi":
        if unknown in found and "z" not in found:
            found = found.replace(unknown, "z", 1)
    found = found.replace("s", "c") if "c" not in found else found
    if len(set(found)) < len(found) or not {"y", "x"} <= set(found) <= set("tczyx"):
        sizes = ", ".join(f"{axis} {size}" for axis, size in zip(named, shape, strict=True))
        raise ValueError(f"has the axes {sizes}; a volume has Z, Y, X and perhaps C")
    return found


def _dtype(file: Any, series: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(series.dtype).newbyteorder(file.byteorder)
    return found


class _Pages:
    """The planes of a compressed or tiled file, each decoded when it is asked for."""

    def __init__(self, pages: Sequence[Any], shape: Sequence[int]) -> None:
        first = next(page for page in pages if page is not None)
        inner = getattr(first, "keyframe", first).shape
        self._pages, self.shape, self.dtype = pages, tuple(shape), np.dtype(first.dtype)
        self._leading = self.shape[: len(self.shape) - len(inner)]
        if self.shape[len(self._leading) :] != tuple(inner) or math.prod(self._leading) != len(pages):
            raise ValueError(f"has {len(pages)} planes of the shape {tuple(inner)}, but should have {self.shape}")

    def __getitem__(self, place: tuple[slice, ...]) -> npt.NDArray[Any]:
        outer, inner = place[: len(self._leading)], place[len(self._leading) :]
        ranges = [range(n)[part] for part, n in zip(outer, self._leading, strict=True)]
        indices = [np.ravel_multi_index(index, self._leading) if index else 0 for index in _product(ranges)]
        planes = [self._plane(int(index))[inner] for index in indices]
        return np.stack(planes).reshape(*(len(part) for part in ranges), *planes[0].shape)

    def _plane(self, index: int) -> npt.NDArray[Any]:
        page = self._pages[index]
        if page is None:
            raise ValueError(f"has no plane {index}, counted from 0")
        found: npt.NDArray[Any] = page.asarray()
        return found


def _product(ranges: Sequence[range]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for part in ranges:
        found = [(*index, n) for index in found for n in part]
    return found


def _attributes(file: Any) -> dict[str, Any]:
    """The voxel size, where the file gives it."""
    if file.is_ome and file.ome_metadata:
        return _of_ome(file.ome_metadata)
    return _of_imagej(file.imagej_metadata, file.pages[0].tags) if file.is_imagej and file.imagej_metadata else {}


def _of_ome(xml: str) -> dict[str, Any]:
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    sizes = [None if pixels is None else pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    if pixels is None or None in sizes[1:]:
        return {}
    # a single plane has no distance to the next
    spacing = [float(size or sizes[1] or 1) for size in sizes]
    units = [unit_named(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"]
    return {"voxel_size": spacing} | ({"axis_units": units} if all(units) else {})


def _of_imagej(held: Mapping[str, Any], tags: Any) -> dict[str, Any]:
    unit = unit_named(held.get("unit", ""))
    if unit is None or "XResolution" not in tags or "YResolution" not in tags:
        return {}
    numbers = [tags[f"{axis}Resolution"].value for axis in "YX"]
    sides = [below / above if above else 1.0 for above, below in numbers]
    spacing = [float(held.get("spacing", sides[0])), *sides]
    return {"voxel_size": [float(f"{size:.9g}") for size in spacing], "axis_units": [unit] * 3}


def write(
    path: Path,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    name: str,
    held: Mapping[str, Any],
    slabs: Iterable[npt.NDArray[Any]],
    *,
    is_ome: bool,
) -> None:
    """Write a volume, plane by plane.

    Args:
        path: of the new file.
        shape: (C, Z, Y, X).
        dtype: for ImageJ uint8, uint16 or float32.
        name: of the image.
        held: ``voxel_size`` and ``axis_units`` (Z, Y, X), if they are known.
        slabs: the volume, in parts of shape (C, planes, Y, X).
        is_ome: OME-TIFF instead of ImageJ's.
    """
    import tifffile

    channels, depth, height, width = shape
    spacing, units = held.get("voxel_size"), held.get("axis_units")
    options: dict[str, Any] = {"shape": (depth, channels, height, width), "dtype": dtype, "photometric": "minisblack"}
    metadata: dict[str, Any] = {"axes": "ZCYX"}
    if is_ome:
        options["compression"], metadata["Name"] = "zlib", name
        for axis, size, unit in zip("ZYX", spacing or (), units or (), strict=False):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    elif spacing and units:
        metadata |= {"spacing": spacing[0], "unit": "um"}
        options["resolution"] = (1 / spacing[2], 1 / spacing[1])
    is_large = math.prod(shape) * dtype.itemsize > 2**31
    with tifffile.TiffWriter(path, ome=is_ome, imagej=not is_ome, bigtiff=is_ome and is_large) as file:
        planes = (plane for slab in slabs for z in range(slab.shape[1]) for plane in slab[:, z])
        file.write(planes, metadata=metadata, **options)
