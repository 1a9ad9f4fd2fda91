"""Volumes in files of any format, several of them seen as one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from p3d_regression.errors import ConfigError, VolumesError
from p3d_regression.volumes import image_file, zarr_store
from p3d_regression.volumes.axes import BY_NUMBER, ArrayVolume
from p3d_regression.volumes.opening import opened

#: Planes, rows and columns of a volume.
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Source:
    """A volume in a file.

    Attributes:
        path: of the file, or of a directory with Zarr arrays.
        key: of the dataset in it; empty where a file has one volume.
        axes: one letter of ``tczyx`` for each axis, in place of what the file says.
    """

    path: Path
    key: str = ""
    axes: str | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.key}" if self.key and not image_file.format_of(self.path) else str(self.path)


@dataclass(frozen=True)
class Volume:
    """One or several volumes as one of shape (C, Z, Y, X).

    Attributes:
        parts: what is open, each of shape (Z, Y, X) or (C, Z, Y, X).
        along: the axis along which they follow each other.
        shape: of all together.
        dtype: the smallest that holds all their values.
        attrs: of the first one.
    """

    parts: Sequence[Any]
    along: Literal["c", "z"]
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]

    @property
    def spatial(self) -> tuple[int, int, int]:
        return self.shape[1:]

    def read(self, box: Box) -> npt.NDArray[Any]:
        """A part of the volume, with all channels: shape (C, planes, rows, columns)."""
        if self.along == "c":
            found = [_with_channels(np.asarray(part[(..., *box)])) for part in self.parts]
            return np.concatenate(found).astype(self.dtype, copy=False)
        z, y, x = box
        ends = np.cumsum([part.shape[-3] for part in self.parts]).tolist()
        planes = []
        for part, end in zip(self.parts, ends, strict=True):
            first = end - part.shape[-3]
            inside = slice(max(z.start - first, 0), min(z.stop, end) - first)
            if inside.start < inside.stop:
                planes.append(_with_channels(np.asarray(part[..., inside, y, x])))
        return np.concatenate(planes, axis=1).astype(self.dtype, copy=False)


def _with_channels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values if values.ndim == 4 else values[None]


@contextmanager
def together(sources: Sequence[Source], along: Literal["c", "z"] = "c") -> Iterator[Volume]:
    """Open volumes as one.

    Args:
        sources: of one shape, but for the axis along which they follow each other.
        along: that axis.

    Raises:
        VolumesError: one cannot be read, or their shapes differ.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(open_source(source)) for source in sources]
        shapes = [part.shape if part.ndim == 4 else (1, *part.shape) for part in parts]
        axis = "cz".index(along)
        rest = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
        for source, shape, other in zip(sources, shapes, rest, strict=True):
            if other != rest[0]:
                raise VolumesError(
                    f"{source} has the shape {shape} (C, Z, Y, X), but {sources[0]} has {shapes[0]}: they are not "
                    f"{'channels' if along == 'c' else 'planes'} of one volume."
                )
        whole = list(shapes[0])
        whole[axis] = sum(shape[axis] for shape in shapes)
        dtype = np.result_type(*(part.dtype for part in parts))
        c, z, y, x = whole
        yield Volume(
            parts, along, (c, z, y, x), np.dtype(np.uint8) if dtype.kind == "b" else dtype, dict(parts[0].attrs)
        )


@contextmanager
def open_source(source: Source) -> Iterator[Any]:
    """Open one volume: shape (Z, Y, X) or (C, Z, Y, X).

    Raises:
        VolumesError: it cannot be read, or is no volume of numbers.
    """
    with ExitStack() as stack:
        try:
            is_image = image_file.format_of(source.path) is not None
            opening = image_file.opened(source.path, source.axes) if is_image else opened(source.path)
            file = stack.enter_context(opening)
            found: Any = file[source.key]
            if not hasattr(found, "ndim"):
                raise VolumesError(f"{source} is a group of datasets, not a volume.")
            if not isinstance(found, ArrayVolume) and (source.axes or found.ndim == 2):
                found = ArrayVolume(
                    found,
                    source.axes or BY_NUMBER[found.ndim],
                    name=f"{source} ",
                    chunks=found.chunks,
                    attrs=dict(found.attrs),
                )
        except ConfigError as error:
            raise VolumesError(str(error)) from error
        except (OSError, KeyError, ValueError) as error:
            why = error.args[0] if isinstance(error, KeyError) and error.args else error
            text = f"{source.path} does not exist" if not source.path.exists() else " ".join(str(why).split())
            start = "" if str(source.path) in text else f"{source}: "
            raise VolumesError(f"{start}{text}.") from error
        if found.ndim not in (3, 4) or found.dtype.kind not in "fiub":
            raise VolumesError(
                f"{source} has the shape {found.shape} and the type {found.dtype}; a volume consists of numbers and "
                "has the shape (Z, Y, X) or (C, Z, Y, X)."
            )
        yield found


def source_of(text: str, axes: str | None = None) -> Source:
    """A volume that is named as ``PATH``, or as ``PATH:DATASET`` where a file may have several.

    Raises:
        VolumesError: it is not there, or not clear.
    """
    path, colon, key = text.rpartition(":")
    if colon and not Path(text).exists() and Path(path).exists():
        return Source(Path(path), key, axes)
    found = sources_in(Path(text))
    if len(found) > 1:
        predictions = [source for source in found if source.key == "predictions"]
        if len(predictions) != 1:
            names = ", ".join(source.key for source in found)
            raise VolumesError(f"{text} has the datasets {names}. Write {text}:DATASET.")
        found = predictions
    return Source(found[0].path, found[0].key, axes)


def sources_in(path: Path) -> list[Source]:
    """The volumes in a file, or in a directory with Zarr arrays; of an OME-Zarr image its finest level.

    Raises:
        VolumesError: there are none.
    """
    if image_file.format_of(path):
        return [Source(path)]
    try:
        with opened(path) as file:
            names = zarr_store.finest(file) if isinstance(file, zarr_store.Store) else _datasets(file)
    except ConfigError as error:
        raise VolumesError(str(error)) from error
    except OSError as error:
        why = "does not exist" if not path.exists() else f"is no HDF5 file, and none of the formats {formats()}"
        raise VolumesError(f"{path} {why}.") from error
    if not names:
        raise VolumesError(f"{path} has no datasets.")
    return [Source(path, name) for name in names]


def formats() -> str:
    """The formats beside HDF5 that can be read."""
    return ", ".join([*(kind.name for kind in image_file.FORMATS), "Zarr"])


def _datasets(file: Any) -> list[str]:
    """The datasets of an HDF5 file that may be volumes; not what a lazy prediction of pytorch-3dunet has written."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if getattr(item, "ndim", 0) in (2, 3, 4) and item.dtype.kind in "fiub" and not name.endswith("_padded"):
            found.append(name)

    file.visititems(visit)
    return found
