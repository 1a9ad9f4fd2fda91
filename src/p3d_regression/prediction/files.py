"""The files of predictions: where they are, how they are begun and finished, whatever their format.

Finished layers are kept beside a file, and it gets its name when it is complete.
"""

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise, write
from p3d_regression.prediction.blending import Array, Place
from p3d_regression.prediction.settings import Settings, difference
from p3d_regression.prediction.spec import RESUME, Compression, Format
from p3d_regression.upstream.log import say
from p3d_regression.volumes.opening import opened

SETTINGS = "settings.json"

#: In the directory of finished layers: the old prediction, while a new one takes its place.
REPLACED = "replaced"

#: Layers that may wait for the disk: each is as large as a layer of the window.
_WAITING = 1

Write = Callable[[int, Callable[[], Mapping[str, Array]]], None]


def output_path(source: Path, output_dir: str | None, output: Format = "hdf5") -> Path:
    """As pytorch-3dunet names it, with the suffix of the format."""
    suffix = "zarr" if output == "zarr" else "h5"
    return (source.parent if output_dir is None else Path(output_dir)) / f"{source.stem}_predictions.{suffix}"


def partial_path(path: Path) -> Path:
    """The directory of the finished layers of a prediction that was interrupted."""
    return path.with_name(f".{path.name}.partial")


def check_resumable(settings: Settings, path: Path, dataset: str, *, is_job: bool = False) -> None:
    """Refuse to go on with a prediction that was made in another way.

    Args:
        settings: of this prediction.
        path: of its file.
        dataset: of the predictions in it.
        is_job: whether this is one job of several, which always go on with what is there.

    Raises:
        ConfigError: it was made in another way, or not by this project.
    """
    partial = partial_path(path)
    if partial.is_dir():
        where, held = partial, held_settings(partial)
    elif path.exists():
        where, held = path, _attributes_in(path, dataset)
    else:
        return
    what = difference(settings, held)
    if what and is_job:
        message = f"{where} {what}. Jobs that share a prediction go on with what is there."
        raise ConfigError("loaders.output_dir", message, advise(f"delete {where}, or write to another directory"))
    if what:
        raise ConfigError(RESUME, f"is true, but {where} {what}.", write(RESUME, False))


def _attributes_in(path: Path, dataset: str) -> Mapping[str, Any]:
    with suppress(OSError, KeyError), opened(path) as file:
        return dict(file[dataset].attrs)
    return {}


def held_settings(directory: Path) -> Mapping[str, Any]:
    """Of a prediction that was interrupted; empty where they are not known."""
    with suppress(OSError, ValueError):
        found = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def is_complete(settings: Settings, path: Path, dataset: str) -> bool:
    """Whether a prediction with these settings is there."""
    there = path.exists() and not partial_path(path).is_dir()
    return there and difference(settings, _attributes_in(path, dataset)) is None


def discard(path: Path) -> None:
    """Delete the finished layers of an interrupted prediction, if there are any.

    Raises:
        OSError: they cannot be deleted.
    """
    directory = partial_path(path)
    if not directory.is_dir():
        return
    old = directory / REPLACED
    if old.exists() and not path.exists():
        old.rename(path)
    say(f"{path}: starts over; what is finished of an interrupted prediction is deleted")
    shutil.rmtree(directory)


@dataclass(frozen=True)
class Output(ABC):
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

    #: How many planes are written at once.
    planes: ClassVar[int]

    @abstractmethod
    def recover(self) -> None:
        """Tidy up what a process that was killed while it completed the file has left."""

    @abstractmethod
    def begin(self, places: Sequence[Place], attributes: Mapping[str, Mapping[str, Any]], *, resume: bool) -> bool:
        """Get ready to write; what is left of another prediction is deleted.

        Args:
            places: of the patches.
            attributes: of each dataset.
            resume: whether to go on with what is there.

        Returns:
            Whether there is something to do; not if another process has completed the file in the meantime.

        Raises:
            ConfigError: the file cannot be written.
        """

    @property
    @abstractmethod
    def boxes(self) -> Mapping[int, Place]:
        """What this process writes, one after the other: parts of the volume by their numbers."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes write to the same file."""
        return False

    @abstractmethod
    def finished(self, box: int) -> int:
        """How many layers of a box are finished."""

    @abstractmethod
    def write(self, box: int, layer: int, values: Mapping[str, Array]) -> None:
        """Write a layer of a box: the values of each dataset, shape (C, planes, H, W)."""

    @abstractmethod
    def complete(self) -> bool:
        """Give the file its name, unless other processes have not finished; returns whether this one has done so.

        Raises:
            ConfigError: the file cannot be written.
        """

    @abstractmethod
    def kept(self) -> tuple[int, int]:
        """How many layers are finished, and of how many."""

    @contextmanager
    def writer(self, box: int) -> Iterator[Write]:
        """A function that writes a layer, given its number and what computes it, in a thread of its own.

        Raises:
            ConfigError: the file cannot be written; also from the function, for a layer before.
        """
        waiting: list[Future[None]] = []
        with ThreadPoolExecutor(1) as thread:

            def write(layer: int, planes: Callable[[], Mapping[str, Array]]) -> None:
                waiting.append(thread.submit(lambda: self.write(box, layer, planes())))
                while len(waiting) > _WAITING or (waiting and waiting[0].done()):
                    waiting.pop(0).result()

            yield write
            for future in waiting:
                future.result()

    def say_kept(self) -> None:
        """After a failure: what is left, and how to go on."""
        try:
            count, layers = self.kept()
        except OSError:
            return  # it was not even begun
        if count:
            say(
                f"{self.path}: {count} of {layers} layers are finished; with predictor: {{resume: true}} in the config "
                "the prediction goes on from there"
            )
        elif not self.is_shared:
            shutil.rmtree(partial_path(self.path), ignore_errors=True)


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
