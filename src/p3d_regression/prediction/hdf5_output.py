"""A prediction as an HDF5 file.

A layer is a small HDF5 file of its own, which no crash can spoil once it has its name, unlike a large file that grows.
Its compressed chunks are copied into the final file as they are.
"""

import errno
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, ClassVar

import h5py

from p3d_regression.prediction.blending import PLANES, Array, Place
from p3d_regression.prediction.files import (
    SETTINGS,
    Output,
    discard,
    held_settings,
    partial_path,
    writing,
)
from p3d_regression.prediction.settings import as_attributes
from p3d_regression.volumes.writing import write_whole


@dataclass(frozen=True)
class Hdf5Output(Output):
    """An HDF5 file, written by one process from the first plane to the last."""

    _attributes: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    planes: ClassVar[int] = PLANES

    @property
    def layers(self) -> int:
        """How many there are."""
        return -(-self.shape[0] // PLANES)

    @property
    def boxes(self) -> Mapping[int, Place]:
        z, y, x = (slice(0, n) for n in self.shape)
        return {0: (z, y, x)}

    def recover(self) -> None:
        # what was being put together gets its name in one step, or is left under another one
        with writing(self.path):
            for left in self.path.parent.glob(f".{escape(self.path.name)}.*.tmp"):
                left.unlink(missing_ok=True)

    def begin(self, places: Sequence[Place], attributes: Mapping[str, Mapping[str, Any]], *, resume: bool) -> bool:
        self._attributes.update(attributes)
        directory = partial_path(self.path)
        with writing(self.path):
            if resume and held_settings(directory):
                return True
            discard(self.path)
            directory.mkdir()
            text = json.dumps(as_attributes(self.settings))
            write_whole(directory / SETTINGS, lambda path: path.write_text(text, encoding="utf-8"))
        return True

    def finished(self, box: int) -> int:
        count = 0
        while count < self.layers and self._is_whole(count):
            count += 1
        return count

    def _is_whole(self, layer: int) -> bool:
        # power may have failed after it got its name
        with suppress(OSError, KeyError), h5py.File(self._layer(layer), "r") as file:
            return all(file[name].shape[0] == channels for name, channels in self.datasets.items())
        return False

    def _layer(self, number: int) -> Path:
        return partial_path(self.path) / f"{number:06d}.h5"

    def kept(self) -> tuple[int, int]:
        return len(list(partial_path(self.path).glob("[0-9]*.h5"))), self.layers

    def _create(self, file: Any, name: str, planes: int) -> Any:
        # a chunk is as high as a layer
        chunks = (1, PLANES, min(64, self.shape[1]), min(64, self.shape[2]))
        shape, most = (self.datasets[name], planes, *self.shape[1:]), (self.datasets[name], None, *self.shape[1:])
        return file.create_dataset(name, shape, "float32", maxshape=most, chunks=chunks, compression=self.compression)

    def write(self, box: int, layer: int, values: Mapping[str, Array]) -> None:
        # in memory first: of a disk that is full, HDF5 complains again and again
        with h5py.File(self._layer(layer), "w", driver="core", backing_store=False) as file:
            for name, planes in values.items():
                self._create(file, name, planes.shape[1])[...] = planes
            file.flush()
            content = file.id.get_file_image()
        with writing(self.path):
            write_whole(self._layer(layer), lambda path: path.write_bytes(content))

    def complete(self) -> bool:
        """Put the layers together."""

        def create(path: Path) -> None:
            needed = sum(self._layer(number).stat().st_size for number in range(self.layers))
            if shutil.disk_usage(path.parent).free < needed:
                raise OSError(errno.ENOSPC, "")
            with h5py.File(path, "w") as file:
                for name in self.datasets:
                    out = self._create(file, name, self.shape[0])
                    out.attrs.update(self._attributes[name])
                for number in range(self.layers):
                    with h5py.File(self._layer(number), "r") as layer:
                        for name in self.datasets:
                            _copy_chunks(layer[name], file[name], number * PLANES)

        with writing(self.path):
            write_whole(self.path, create)
        shutil.rmtree(partial_path(self.path), ignore_errors=True)
        return True


def _copy_chunks(source: Any, target: Any, first: int) -> None:
    """Copy compressed chunks as they are."""
    for index in range(source.id.get_num_chunks()):
        c, z, y, x = source.id.get_chunk_info(index).chunk_offset
        mask, content = source.id.read_direct_chunk((c, z, y, x))
        target.id.write_direct_chunk((c, z + first, y, x), content, mask)
