"""Files of one volume each, of formats that pytorch-3dunet does not read: TIFF, NIfTI, NPY and MRC."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise
from p3d_regression.volumes import tiff
from p3d_regression.volumes.axes import BY_NUMBER, ArrayVolume
from p3d_regression.volumes.geometry import unit_named


@dataclass(frozen=True)
class Format:
    """A format of such files.

    Attributes:
        name: of it.
        suffixes: of its files.
        package: that reads it.
    """

    name: str
    suffixes: tuple[str, ...]
    package: str


#: Of two suffixes that fit, the longer one comes first.
FORMATS = (
    Format("TIFF", (".ome.tif", ".ome.tiff", ".tif", ".tiff"), "tifffile"),
    Format("NIfTI", (".nii.gz", ".nii"), "nibabel"),
    Format("NPY", (".npy",), "numpy"),
    Format("MRC", (".mrc", ".map", ".rec"), "mrcfile"),
)

#: The name of the volume of such a file.
NAME = "volume"


def format_of(path: str | Path) -> Format | None:
    """The format of a file, by its suffix; None for other files."""
    name = Path(path).name.lower()
    return next((kind for kind in FORMATS if name.endswith(kind.suffixes)), None)


def package_of(kind: Format) -> Any:
    """The package that reads and writes a format.

    Raises:
        ConfigError: it is missing.
    """
    try:
        return import_module(kind.package)
    except ImportError as error:
        message = f"{kind.name} files need the package {kind.package}."
        install = advise('install it with: pip install "p3d-regression[formats]"')
        raise ConfigError("", message, install) from error


class ImageFile:
    """A file that holds one volume, which is found under every name."""

    def __init__(self, volume: ArrayVolume) -> None:
        self._volume = volume

    def __contains__(self, key: object) -> bool:
        return key == NAME

    def __getitem__(self, key: object) -> ArrayVolume:
        return self._volume

    def get(self, key: object) -> ArrayVolume:
        """The volume."""
        return self._volume

    def names(self) -> list[str]:
        """The name of the volume."""
        return [NAME]


@contextmanager
def opened(path: str | Path, axes: str | None = None) -> Iterator[ImageFile]:
    """Open such a file.

    Args:
        path: of it.
        axes: one letter of ``tczyx`` for each axis, where the file does not name them or names other ones.

    Raises:
        ConfigError: the package that reads it is missing.
        OSError: it does not exist, or is damaged.
        ValueError: what it holds is no volume.
    """
    kind = format_of(path)
    assert kind is not None
    package = package_of(kind)
    with ExitStack() as stack:
        try:
            array, named, attributes = stack.enter_context(_READERS[kind.name](package, Path(path)))
            chosen = axes or named
            if not chosen or len(chosen) != len(array.shape):
                raise ValueError(f"has {len(array.shape)} axes, of the sizes {tuple(array.shape)}, and is no volume")
            if array.dtype.kind not in "fiub":
                raise ValueError(f"has values of the type {array.dtype}, which are no numbers")
            volume = ArrayVolume(array, chosen, attrs=attributes)
        except OSError:
            raise
        except Exception as error:
            what = str(error) if isinstance(error, ValueError) else f"cannot be read as {kind.name}: {error}"
            raise ValueError(f"{path} {what}") from error
        yield ImageFile(volume)


_Read = tuple[Any, str, dict[str, Any]]


@contextmanager
def _tiff(package: Any, path: Path) -> Iterator[_Read]:
    with package.TiffFile(path) as file:
        yield tiff.read(file)


@contextmanager
def _nifti(package: Any, path: Path) -> Iterator[_Read]:
    image = package.load(path, keep_file_open=True)
    header = image.header
    axes = "xyz"[: min(image.ndim, 3)] + {4: "c", 5: "tc"}.get(image.ndim, "")
    attributes: dict[str, Any] = {}
    if image.ndim >= 3:
        attributes["voxel_size"] = [float(size) for size in header.get_zooms()[2::-1]]
        if unit := unit_named(header.get_xyzt_units()[0]):
            attributes["axis_units"] = [unit] * 3
        # without one of these the matrix is made up by nibabel
        if int(header["sform_code"]) or int(header["qform_code"]):
            attributes["affine"] = np.asarray(image.affine, float).tolist()
    yield _Scaled(image.dataobj), axes, attributes


class _Scaled:
    """What nibabel reads: numbers as they are stored, or scaled by slope and intercept, then in single precision."""

    def __init__(self, proxy: Any) -> None:
        self._proxy, self.shape = proxy, tuple(int(n) for n in proxy.shape)
        is_scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
        self.dtype = np.dtype(np.float32) if is_scaled else np.dtype(proxy.dtype)

    def __getitem__(self, place: tuple[slice, ...]) -> npt.NDArray[Any]:
        return np.asarray(self._proxy[place], self.dtype)


@contextmanager
def _npy(package: Any, path: Path) -> Iterator[_Read]:
    array = package.load(path, mmap_mode="r", allow_pickle=False)
    yield array, BY_NUMBER.get(array.ndim, ""), {}


@contextmanager
def _mrc(package: Any, path: Path) -> Iterator[_Read]:
    with package.mmap(path, mode="r") as file:
        order = [int(file.header[name]) for name in ("maps", "mapr", "mapc")]
        named = "".join("xyz"[n - 1] for n in order) if sorted(order) == [1, 2, 3] else "zyx"
        axes = {2: "yx", 3: named, 4: "tzyx"}.get(file.data.ndim, "")
        size = file.voxel_size
        spacing = [float(size[axis]) for axis in "zyx"]
        attributes = {"voxel_size": spacing, "axis_units": ["angstrom"] * 3} if all(spacing) else {}
        yield file.data, axes, attributes


_READERS: dict[str, Callable[[Any, Path], Any]] = {"TIFF": _tiff, "NIfTI": _nifti, "NPY": _npy, "MRC": _mrc}
