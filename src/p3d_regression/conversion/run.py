"""Conversions of whole files: to HDF5 files that pytorch-3dunet reads, and back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from p3d_regression.conversion import writers
from p3d_regression.conversion.pairing import Pair
from p3d_regression.conversion.source import Box, Source, Volume, together
from p3d_regression.errors import ConfigError, VolumesError
from p3d_regression.volumes import image_file
from p3d_regression.volumes.writing import write_whole

#: Suffixes of HDF5 files that pytorch-3dunet finds in a directory.
HDF5 = (".h5", ".hdf5", ".hdf", ".hd5")

#: Suffixes of everything that can be written.
SUFFIXES = (*HDF5, *(suffix for kind in image_file.FORMATS for suffix in kind.suffixes), ".zarr")

#: Called with the name of a file and its voxels; what it returns is told of those that were written.
Progress = Callable[[str, int], writers.Advance]


@dataclass(frozen=True)
class Written:
    """A new file.

    Attributes:
        path: of it.
        shapes: of its volumes, by their names.
        lost: what its format has no place for.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    lost: list[str] = field(default_factory=list)


def to_hdf5(pair: Pair, path: Path, progress: Progress, box: Box | None = None) -> Written:
    """Write a raw volume and its labels into a file for pytorch-3dunet, as the datasets ``raw`` and ``label``.

    Args:
        pair: of them; labels may be missing.
        path: of the new file.
        progress: told of what is written.
        box: the part of the volumes that is written; None for all.

    Raises:
        VolumesError: a volume cannot be read, they have different shapes, or the file exists.
    """
    return _hdf5({"raw": pair.raw, "label": pair.label}, path, progress, box=box)


def _hdf5(
    sources: dict[str, tuple[Source, ...]],
    path: Path,
    progress: Progress,
    *,
    box: Box | None = None,
    along: Literal["c", "z"] = "c",
) -> Written:
    with ExitStack() as stack:
        volumes = {name: stack.enter_context(together(part, along)) for name, part in sources.items() if part}
        first = next(iter(volumes))
        for name, volume in volumes.items():
            if volume.spatial != volumes[first].spatial:
                raise VolumesError(
                    f"{sources[name][0]} has the shape {volume.spatial} (Z, Y, X), but {sources[first][0]} has "
                    f"{volumes[first].spatial}: they are not the same voxels."
                )
        parts = box or writers.whole(volumes[first])
        sizes = tuple(part.stop - part.start for part in parts)
        channels = {name: volume.shape[0] for name, volume in volumes.items()}
        voxels = sum(channels.values()) * sizes[0] * sizes[1] * sizes[2]
        with _new(path) as create:
            advance = progress(path.name, voxels)
            create(lambda beside: writers.write_hdf5(beside, volumes, box, advance))
        return Written(path, {name: ((n, *sizes) if n > 1 else sizes) for name, n in channels.items()})


def convert(sources: Sequence[Source], path: Path, progress: Progress, *, along: Literal["c", "z"] = "c") -> Written:
    """Write volumes as one file, in the format of its suffix.

    Args:
        sources: channels, or planes, of one volume.
        path: of the new file.
        progress: told of what is written.
        along: the axis along which they follow each other.

    Raises:
        VolumesError: a volume cannot be read, the format cannot hold it, or the file exists.
    """
    writers.check_suffix(path.name, SUFFIXES)
    if path.name.lower().endswith(HDF5):
        return _hdf5({"raw": tuple(sources)}, path, progress, along=along)
    with together(sources, along) as volume, _new(path) as create:
        voxels = volume.shape[0] * volume.shape[1] * volume.shape[2] * volume.shape[3]
        advance = progress(path.name, voxels)
        lost: list[str] = []
        create(lambda beside: lost.extend(writers.write(beside, path.name, volume, advance)))
        return Written(path, {"volume": _shape(volume)}, lost)


def _shape(volume: Volume) -> tuple[int, ...]:
    return volume.shape if volume.shape[0] > 1 else volume.spatial


@contextmanager
def _new(path: Path) -> Iterator[Callable[[Callable[[Path], object]], None]]:
    """Gives what creates a file, whole or not at all.

    Raises:
        VolumesError: it exists, or cannot be written.
    """
    if path.exists():
        raise VolumesError(f"{path} exists. Delete it, or write to another file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield lambda create: write_whole(path, create)
    except ConfigError as error:
        raise VolumesError(str(error)) from error
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, VolumesError):
            raise
        raise VolumesError(f"{path} cannot be written: {' '.join(str(error).split())}.") from error
