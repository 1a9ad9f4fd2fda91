"""The file of a prediction: finished layers are kept beside it, and it gets its name when it is complete.

A layer is a small HDF5 file of its own, which no crash can spoil once it has its name, unlike a large file that grows.
Its compressed chunks are copied into the final file as they are.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise
from p3d_regression.prediction.blending import PLANES, Array
from p3d_regression.prediction.settings import Settings, as_attributes, check_same
from p3d_regression.prediction.spec import Compression
from p3d_regression.upstream.log import say

_SETTINGS = "settings.json"

#: Layers that may wait for the disk: each is as large as a layer of the window.
_WAITING = 1

Write = Callable[[int, Callable[[], Mapping[str, Array]]], None]


def output_path(source: Path, output_dir: str | None) -> Path:
    """As pytorch-3dunet names it."""
    return (source.parent if output_dir is None else Path(output_dir)) / f"{source.stem}_predictions.h5"


def partial_path(path: Path) -> Path:
    """The directory of the finished layers of a prediction that was interrupted."""
    return path.with_name(f".{path.name}.partial")


def check_resumable(settings: Settings, path: Path, dataset: str) -> None:
    """Refuse to go on with a prediction that was made in another way.

    Args:
        settings: of this prediction.
        path: of its file.
        dataset: of the predictions in it.

    Raises:
        ConfigError: see :func:`~p3d_regression.prediction.settings.check_same`.
    """
    if partial_path(path).is_dir():
        check_same(settings, _held(partial_path(path)), partial_path(path))
    elif path.is_file():
        check_same(settings, _attributes_in(path, dataset), path)


def _attributes_in(path: Path, dataset: str) -> Mapping[str, Any]:
    with suppress(OSError, KeyError), h5py.File(path, "r") as file:
        return dict(file[dataset].attrs)
    return {}


def _held(directory: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


@dataclass(frozen=True)
class Output:
    """The file of one prediction.

    Attributes:
        path: of the file.
        datasets: its datasets, with their channels.
        shape: of the volume, (D, H, W).
        compression: of the datasets.
        settings: that decide its values.
    """

    path: Path
    datasets: Mapping[str, int]
    shape: tuple[int, ...]
    compression: Compression | None
    settings: Settings

    @property
    def layers(self) -> int:
        """How many there are."""
        return -(-self.shape[0] // PLANES)

    def finished(self, *, resume: bool) -> int:
        """How many layers are finished already; those of another prediction are deleted.

        Raises:
            ConfigError: the file cannot be written.
        """
        directory = partial_path(self.path)
        with writing(self.path):
            if resume and _held(directory):
                count = 0
                while count < self.layers and self._is_whole(count):
                    count += 1
                return count
            if directory.exists():
                if count := len(list(directory.glob("[0-9]*.h5"))):
                    say(f"{self.path}: starts over; {count} finished layers of an interrupted prediction are deleted")
                shutil.rmtree(directory)
            directory.mkdir()
            text = json.dumps(as_attributes(self.settings))
            write_whole(directory / _SETTINGS, lambda path: path.write_text(text, encoding="utf-8"))
            return 0

    def _is_whole(self, layer: int) -> bool:
        # power may have failed after it got its name
        with suppress(OSError, KeyError), h5py.File(self._layer(layer), "r") as file:
            return all(file[name].shape[0] == channels for name, channels in self.datasets.items())
        return False

    def _layer(self, number: int) -> Path:
        return partial_path(self.path) / f"{number:06d}.h5"

    def _create(self, file: Any, name: str, planes: int) -> Any:
        # a chunk is as high as a layer
        chunks = (1, PLANES, min(64, self.shape[1]), min(64, self.shape[2]))
        shape, most = (self.datasets[name], planes, *self.shape[1:]), (self.datasets[name], None, *self.shape[1:])
        return file.create_dataset(name, shape, "float32", maxshape=most, chunks=chunks, compression=self.compression)

    @contextmanager
    def writer(self) -> Iterator[Write]:
        """A function that writes a layer, given its number and what computes it, in a thread of its own.

        Raises:
            ConfigError: the file cannot be written; also from the function, for a layer before.
        """
        waiting: list[Future[None]] = []
        with ThreadPoolExecutor(1) as thread:

            def write(number: int, planes: Callable[[], Mapping[str, Array]]) -> None:
                waiting.append(thread.submit(self._write, number, planes))
                while len(waiting) > _WAITING or (waiting and waiting[0].done()):
                    waiting.pop(0).result()

            yield write
            for future in waiting:
                future.result()

    def _write(self, number: int, planes: Callable[[], Mapping[str, Array]]) -> None:
        # in memory first: of a disk that is full, HDF5 complains again and again
        with h5py.File(self._layer(number), "w", driver="core", backing_store=False) as file:
            for name, values in planes().items():
                self._create(file, name, values.shape[1])[...] = values
            file.flush()
            content = file.id.get_file_image()
        with writing(self.path):
            write_whole(self._layer(number), lambda path: path.write_bytes(content))

    def complete(self, attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Put the layers together, and give the file its name.

        Args:
            attributes: of each dataset.

        Raises:
            ConfigError: the file cannot be written.
        """

        def create(path: Path) -> None:
            needed = sum(self._layer(number).stat().st_size for number in range(self.layers))
            if shutil.disk_usage(path.parent).free < needed:
                raise OSError(errno.ENOSPC, "")
            with h5py.File(path, "w") as file:
                for name in self.datasets:
                    out = self._create(file, name, self.shape[0])
                    out.attrs.update(attributes[name])
                for number in range(self.layers):
                    with h5py.File(self._layer(number), "r") as layer:
                        for name in self.datasets:
                            _copy_chunks(layer[name], file[name], number * PLANES)

        with writing(self.path):
            write_whole(self.path, create)
        shutil.rmtree(partial_path(self.path), ignore_errors=True)


def _copy_chunks(source: Any, target: Any, first: int) -> None:
    """Copy compressed chunks as they are."""
    for index in range(source.id.get_num_chunks()):
        c, z, y, x = source.id.get_chunk_info(index).chunk_offset
        mask, content = source.id.read_direct_chunk((c, z, y, x))
        target.id.write_direct_chunk((c, z + first, y, x), content, mask)


def write_whole(path: Path, create: Callable[[Path], object]) -> None:
    """Create a file, which gets its name when it is complete; if anything fails, nothing is left.

    Args:
        path: of it.
        create: writes the file at the path that it is given.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        create(beside)
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An error of the file system is one of the output, and not of the volume that is read.

    Raises:
        ConfigError: it is one.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 reports what fails while it closes a file as a RuntimeError
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number else " ".join(str(error).split())
        advice = advise("free or change it")
        raise ConfigError("loaders.output_dir", f"{path} cannot be written: {why}.", advice) from error


def say_kept(output: Output) -> None:
    """After a failure: what is left, and how to go on."""
    count = len(list(partial_path(output.path).glob("[0-9]*.h5")))
    if count:
        say(
            f"{output.path}: {count} of {output.layers} layers are finished; with predictor: {{resume: true}} in the "
            "config the prediction goes on from there"
        )
    else:
        shutil.rmtree(partial_path(output.path), ignore_errors=True)
