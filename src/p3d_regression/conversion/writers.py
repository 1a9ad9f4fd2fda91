"""Volumes as files of other formats, written part by part."""

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from p3d_regression.conversion.source import Box, Volume
from p3d_regression.errors import VolumesError
from p3d_regression.volumes import image_file, tiff, zarr_store
from p3d_regression.volumes.geometry import SPACING, in_unit, moved, spacing_of, unit_named, units_of

#: Called with the number of voxels that were written.
Advance = Callable[[int], None]

#: Voxels of a chunk along Z, and along Y and X: patches are a multiple of these, or nearly.
_PLANES, _SIDE = 16, 64

#: Bytes that are in memory at once, about.
_MOST = 2**28

_TYPES_OF_MRC = ("int8", "int16", "uint16", "float16", "float32")


def whole(volume: Volume) -> Box:
    """The box of all voxels."""
    z, y, x = (slice(0, n) for n in volume.spatial)
    return z, y, x


def write_hdf5(path: Path, volumes: Mapping[str, Volume], box: Box | None, advance: Advance) -> None:
    """Write an HDF5 file for pytorch-3dunet.

    Args:
        path: of the new file.
        volumes: by the names of their datasets; one channel is written as (Z, Y, X), several as (C, Z, Y, X).
        box: the part of each that is written; None for all.
        advance: told of what was written.
    """
    import h5py

    with h5py.File(path, "x") as file:
        for name, volume in volumes.items():
            part = box or whole(volume)
            sizes = [axis.stop - axis.start for axis in part]
            chunks = [min(most, n) for most, n in zip((_PLANES, _SIDE, _SIDE), sizes, strict=True)]
            leading = [volume.shape[0]] if volume.shape[0] > 1 else []
            out = file.create_dataset(
                name,
                [*leading, *sizes],
                volume.dtype,
                chunks=(*([1] * len(leading)), *chunks),
                # level 1 is several times as fast as the default, and hardly larger
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
            for target, values in _boxes(volume, part, _PLANES):
                out[(..., *target)] = values if leading else values[0]
                advance(values.size)
            attributes = moved(volume.attrs, [axis.start for axis in part])
            out.attrs.update({key: value for key, value in attributes.items() if value is not None})


def _boxes(volume: Volume, part: Box, planes: int) -> Iterator[tuple[Box, npt.NDArray[Any]]]:
    """A part of a volume box by box: where each is in the part, and its values."""
    z, y, x = part
    line = volume.shape[0] * (x.stop - x.start) * volume.dtype.itemsize
    rows = max(_SIDE, _MOST // max(1, planes * line) // _SIDE * _SIDE)
    for first in range(z.start, z.stop, planes):
        for row in range(y.start, y.stop, rows):
            box = (slice(first, min(first + planes, z.stop)), slice(row, min(row + rows, y.stop)), x)
            planes_there = slice(box[0].start - z.start, box[0].stop - z.start)
            rows_there = slice(box[1].start - y.start, box[1].stop - y.start)
            yield (planes_there, rows_there, slice(0, x.stop - x.start)), volume.read(box)


def write(path: Path, name: str, volume: Volume, advance: Advance) -> list[str]:
    """Write a volume in the format of a file name.

    Args:
        path: of the new file or directory, which may have another suffix.
        name: of the file that it will be.
        volume: to write.
        advance: told of what was written.

    Returns:
        What the format has no place for, in words.

    Raises:
        VolumesError: the format cannot hold it.
    """
    kind = image_file.format_of(name)
    if kind is None:
        _write_zarr(path, name, volume, advance)
        return []
    image_file.package_of(kind)
    return _WRITERS[kind.name](path, name, volume, advance)


def _planes(volume: Volume, advance: Advance, channel: int | None = None) -> Iterator[npt.NDArray[Any]]:
    """Some planes at a time, of one channel or of all: shape (C, planes, Y, X)."""
    z, y, x = whole(volume)
    size = max(1, volume.dtype.itemsize * int(np.prod((volume.shape[0], *volume.shape[2:]))))
    step = max(1, min(_PLANES, _MOST // size))
    for first in range(0, z.stop, step):
        values = volume.read((slice(first, min(first + step, z.stop)), y, x))
        yield values if channel is None else values[channel : channel + 1]
        advance(values.size if channel is None else values[0].size)


def _spacing(volume: Volume, unit: str) -> list[float] | None:
    """The voxel size in a unit; None if it is not known."""
    spacing = spacing_of(volume.attrs)
    return None if spacing is None else in_unit(spacing, units_of(volume.attrs), unit)


def _lost(volume: Volume, *kept: str) -> list[str]:
    """What a format has no place for, of what says where voxels are and what their values mean."""
    found = [key for key in ("affine", "offset", "origin", "units") if key in volume.attrs and key not in kept]
    if any(key in volume.attrs for key in SPACING) and "voxel_size" not in kept:
        found.append("voxel size")
    return found


def _write_nifti(path: Path, name: str, volume: Volume, advance: Advance) -> list[str]:
    import nibabel

    dtype = np.dtype(np.float32) if volume.dtype == np.float16 else volume.dtype
    channels, *spatial = volume.shape
    is_large = max(volume.shape) > np.iinfo(np.int16).max
    kind: Any = nibabel.Nifti2Header if is_large else nibabel.Nifti1Header
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape((*spatial[::-1], channels) if channels > 1 else tuple(spatial[::-1]))
    units = [unit_named(unit) for unit in units_of(volume.attrs) or ()]
    known = {"meter": "meter", "millimeter": "mm", "micrometer": "micron"}
    unit = known.get(str(units[0])) if len(set(units)) == 1 else None
    spacing = spacing_of(volume.attrs)
    if "affine" in volume.attrs:
        header.set_sform(np.asarray(volume.attrs["affine"], float), code="aligned")
    elif spacing and unit is None and (in_micrometers := in_unit(spacing, units_of(volume.attrs), "micrometer")):
        spacing, unit = in_micrometers, "micron"
    if spacing:
        header.set_zooms((*spacing[::-1], 1.0) if channels > 1 else tuple(spacing[::-1]))
    if unit:
        header.set_xyzt_units(unit)
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    opening: Any = gzip.open if name.lower().endswith(".gz") else open
    with opening(path, "wb", *([1] if opening is gzip.open else [])) as file:
        header.write_to(file)
        file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
        # the first axis of NIfTI is the fastest one: planes of one channel after those of the other
        for channel in range(channels):
            for values in _planes(volume, advance, channel):
                file.write(np.ascontiguousarray(values, dtype.newbyteorder(header.endianness)).tobytes())
    return _lost(volume, "affine", "voxel_size")


def _write_tiff(path: Path, name: str, volume: Volume, advance: Advance) -> list[str]:
    spacing = _spacing(volume, "micrometer")
    held = {"voxel_size": spacing, "axis_units": ["µm"] * 3} if spacing else {}
    fits = str(volume.dtype) in ("uint8", "uint16", "float32") and volume.dtype.itemsize * int(
        np.prod(volume.shape)
    ) < (2**32 - 2**25)
    is_ome = not fits or ".ome." in name.lower()
    dtype = np.dtype(np.float32) if volume.dtype == np.float16 else volume.dtype
    slabs = (values.astype(dtype, copy=False) for values in _planes(volume, advance))
    tiff.write(path, volume.shape, dtype, name, held, slabs, is_ome=is_ome)
    return _lost(volume, *(("voxel_size",) if spacing else ()))


def _write_npy(path: Path, name: str, volume: Volume, advance: Advance) -> list[str]:
    shape = volume.shape if volume.shape[0] > 1 else volume.spatial
    out = np.lib.format.open_memmap(path, "w+", volume.dtype, shape)
    first = 0
    for values in _planes(volume, advance):
        planes = slice(first, first + values.shape[1])
        out[..., planes, :, :] = values if volume.shape[0] > 1 else values[0]
        first = planes.stop
    out.flush()
    return _lost(volume)


def _write_mrc(path: Path, name: str, volume: Volume, advance: Advance) -> list[str]:
    import mrcfile

    if volume.shape[0] > 1:
        raise VolumesError(f"{name}: MRC holds one channel, and this volume has {volume.shape[0]}. Write a TIFF.")
    if str(volume.dtype) not in _TYPES_OF_MRC:
        names = ", ".join(_TYPES_OF_MRC)
        raise VolumesError(f"{name}: MRC has no values of the type {volume.dtype}; it has {names}. Write a TIFF.")
    mode = mrcfile.utils.mode_from_dtype(volume.dtype)
    with mrcfile.new_mmap(path, volume.spatial, mrc_mode=mode, overwrite=False) as file:
        first = 0
        for values in _planes(volume, advance):
            file.data[first : first + values.shape[1]] = values[0]
            first += values.shape[1]
        spacing = _spacing(volume, "angstrom")
        if spacing:
            file.voxel_size = tuple(spacing[::-1])
        file.update_header_stats()
    return _lost(volume, *(("voxel_size",) if spacing else ()))


def _write_zarr(path: Path, name: str, volume: Volume, advance: Advance) -> None:
    package = zarr_store.package()
    group = package.create_group(
        store=str(path), attributes=zarr_store.image_attributes(name.partition(".")[0], "0", volume.attrs)
    )
    sizes = [min(most, n) for most, n in zip((2 * _PLANES, _SIDE, _SIDE), volume.spatial, strict=True)]
    array = group.create_array(
        "0",
        shape=volume.shape,
        dtype=volume.dtype,
        chunks=(1, *sizes),
        dimension_names=("c", "z", "y", "x"),
        attributes={key: zarr_store.plain(value) for key, value in volume.attrs.items()},
    )
    for target, values in _boxes(volume, whole(volume), 2 * _PLANES):
        array[(slice(None), *target)] = values
        advance(values.size)


_WRITERS: dict[str, Callable[[Path, str, Volume, Advance], list[str]]] = {
    "TIFF": _write_tiff,
    "NIfTI": _write_nifti,
    "NPY": _write_npy,
    "MRC": _write_mrc,
}


def check_suffix(name: str, allowed: Sequence[str]) -> None:
    """Refuse a file name whose format cannot be written.

    Raises:
        VolumesError: it cannot.
    """
    if not name.lower().endswith(tuple(allowed)):
        raise VolumesError(f"{name}: the format of a new file follows from its suffix, one of {', '.join(allowed)}.")
