"""Open what holds volumes, whatever its format: an HDF5 file, a directory with Zarr arrays, or an image file.

What is opened gives a dataset for a name, and a dataset has ``shape``, ``ndim``, ``dtype``, ``chunks`` and ``attrs``,
and parts of it are read by slices. This is what h5py does; the others follow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from p3d_regression.volumes import image_file, zarr_store


@contextmanager
def opened(path: str | Path, **options: Any) -> Iterator[Any]:
    """Open a file or directory with volumes, for reading.

    Args:
        path: of an HDF5 file, of a directory with Zarr arrays, or of a file with one volume (TIFF, NIfTI, NPY, MRC).
        options: of :class:`h5py.File`; the others have no use for them.

    Raises:
        OSError: it does not exist, or is none of these.
        ValueError: what it holds is no volume.
        ConfigError: the package that reads it is missing.
    """
    if Path(path).is_dir():
        yield zarr_store.Store(path)
        return
    if image_file.format_of(path):
        with image_file.opened(path) as image:
            yield image
        return
    import h5py

    with h5py.File(path, "r", **options) as file:
        yield file


def find(file: Any, key: str | None) -> Any:
    """A dataset of what was opened; None if there is none of that name."""
    found = file.get(key) if key else None
    return found if hasattr(found, "ndim") else None


def names(file: Any) -> list[str]:
    """The names of all datasets of what was opened."""
    if isinstance(file, zarr_store.Store | image_file.ImageFile):
        return file.names()
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "ndim") else None)
    return found


def set_attribute(path: str | Path, key: str, name: str, value: Any) -> None:
    """Write an attribute of a dataset of an HDF5 file or a Zarr array."""
    if Path(path).is_dir():
        zarr_store.set_attribute(path, key, name, value)
        return
    import h5py

    with h5py.File(path, "r+") as file:
        file[key].attrs[name] = value
