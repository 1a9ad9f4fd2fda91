"""Open what holds volumes, whatever its format: an HDF5 file, or a directory with Zarr arrays.

What is opened gives a dataset for a name, and a dataset has ``shape``, ``ndim``, ``dtype``, ``chunks`` and ``attrs``,
and parts of it are read by slices. This is what h5py does; Zarr follows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from p3d_regression.volumes import zarr_store


@contextmanager
def opened(path: str | Path, **options: Any) -> Iterator[Any]:
    """Open a file or directory with volumes, for reading.

    Args:
        path: of an HDF5 file, or of a directory with Zarr arrays.
        options: of :class:`h5py.File`; Zarr has no use for them.

    Raises:
        OSError: it does not exist, or is neither.
        ConfigError: the package zarr is missing.
    """
    if Path(path).is_dir():
        yield zarr_store.Store(path)
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
    if isinstance(file, zarr_store.Store):
        return file.names()
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "ndim") else None)
    return found


def set_attribute(path: str | Path, key: str, name: str, value: Any) -> None:
    """Write an attribute of a dataset."""
    if Path(path).is_dir():
        zarr_store.set_attribute(path, key, name, value)
        return
    import h5py

    with h5py.File(path, "r+") as file:
        file[key].attrs[name] = value
