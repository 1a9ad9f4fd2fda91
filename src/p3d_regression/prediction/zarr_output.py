"""A prediction as a Zarr group, which several processes and machines may write together.

They exchange nothing: boxes and settings are files beside the arrays, each process writes boxes of its own, and counts
the layers that are finished. Whoever finishes the last one gives the group its name.
"""

import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.prediction.blending import Array, Place
from p3d_regression.prediction.files import (
    REPLACED,
    SETTINGS,
    Output,
    check_resumable,
    discard,
    partial_path,
    writing,
)
from p3d_regression.prediction.settings import as_attributes
from p3d_regression.prediction.sharing import SETTING, Share
from p3d_regression.prediction.spec import RESUME
from p3d_regression.prediction.units import Layout, layout_of, repeated
from p3d_regression.upstream.log import console, say
from p3d_regression.volumes.writing import write_whole
from p3d_regression.volumes.zarr_store import image_attributes, package, plain

#: Voxels along an axis: of a chunk, which is compressed on its own, and of a shard, which is one file.
_CHUNK, _SHARD, _DEPTH = 64, 512, 32

#: In the directory of an unfinished prediction: the boxes; how many layers of each are finished; the arrays.
_BOXES, _FINISHED, _ARRAYS = "boxes.json", "finished", "arrays"

#: There as well, while it is completed: a file of the process that does so.
_CLAIM = "completing"


@dataclass(frozen=True)
class ZarrOutput(Output):
    """A Zarr group with an array for each dataset.

    Attributes:
        share: this process among those that write it.
        turn: which process, from 0, has the first part.
    """

    share: Share
    turn: int = 0

    planes: ClassVar[int] = _DEPTH

    _held: dict[str, list[Place]] = field(default_factory=dict)

    @property
    def _directory(self) -> Path:
        return partial_path(self.path)

    def recover(self) -> None:
        with writing(self.path), suppress(FileNotFoundError):
            (self._directory / _CLAIM).unlink()
            old = self._directory / REPLACED
            if old.exists() and not self.path.exists():
                old.rename(self.path)
            if not (self._directory / _ARRAYS).exists():
                shutil.rmtree(self._directory)

    def begin(self, places: Sequence[Place], attributes: Mapping[str, Mapping[str, Any]], *, resume: bool) -> bool:
        with writing(self.path):
            if self._directory.exists() and not resume and not self.is_shared:
                self._check_alone()
                discard(self.path)
            if not self._directory.exists():
                self._create(places, attributes)
        claim = self._directory / _CLAIM
        if claim.exists():
            say(f"{self.path}: another process completes it; if none is running, delete {claim} and start again")
            return False
        try:
            processes = self._read_layout()
        except FileNotFoundError:
            return False
        if resume:
            check_resumable(self.settings, self.path, next(iter(self.datasets)), is_job=self.share.is_job)
        boxes = self._held["boxes"]
        if processes != self.share.count:
            console().warning(
                f"{self.path} was divided among {processes} processes, and there are {self.share.count} now: none of "
                "the old ones may still be running"
            )
        if len(boxes) > 1:
            own = len(self.boxes)
            say(
                f"{self.path}: {own} of {len(boxes)} parts in this process; {repeated(places, boxes) - 1:.0%} of the "
                "patches are computed again, because they reach into several parts"
            )
        return True

    def _check_alone(self) -> None:
        """Refuse to delete what several processes have done: this may be one whose variable was forgotten.

        Raises:
            ConfigError: they have finished layers.
        """
        try:
            processes, count = self._read_layout(), self.kept()[0]
        except (OSError, ValueError, TypeError, KeyError):
            return  # it is damaged
        if processes > 1 and count:
            message = (
                f"{self._directory} has {count} finished layers of a prediction by {processes} processes, and this "
                f"start is not one of them. To begin anew, delete it; for one of the jobs, set {SETTING}; to let "
                "this process do the rest:"
            )
            raise ConfigError(RESUME, message, write(RESUME, True))

    def _read_layout(self) -> int:
        """Read how the volume is divided; returns among how many processes."""
        held = json.loads((self._directory / _BOXES).read_text(encoding="utf-8"))
        processes = int(held.pop("processes"))
        self._held["boxes"] = Layout(**held).boxes
        return processes

    def _create(self, places: Sequence[Place], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Create the directory as a whole, or leave that to a process that has been faster."""
        shard = self._shape_of(_SHARD)
        layout = layout_of(
            places,
            self.shape,
            (_DEPTH, *shard[1:]),
            channels=sum(self.datasets.values()),
            processes=self.share.count,
        )
        beside = self._directory.with_name(f"{self._directory.name}.{platform.node()}.{os.getpid()}")
        try:
            (beside / _FINISHED).mkdir(parents=True)
            texts = {SETTINGS: as_attributes(self.settings), _BOXES: {**vars(layout), "processes": self.share.count}}
            for name, content in texts.items():
                (beside / name).write_text(json.dumps(content), encoding="utf-8")
            self._create_arrays(beside / _ARRAYS, shard, attributes)
            with suppress(OSError):
                beside.rename(self._directory)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _shape_of(self, most: int) -> tuple[int, ...]:
        """Of a chunk or a shard, (Z, Y, X): a multiple of a chunk, and no larger than needed."""
        chunks = [min(_CHUNK, n) for n in self.shape[1:]]
        return (
            min(_DEPTH, self.shape[0]),
            *(min(max(most, c) // c * c, -(-n // c) * c) for c, n in zip(chunks, self.shape[1:], strict=True)),
        )

    def _create_arrays(self, path: Path, shard: tuple[int, ...], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        zarr = package()
        compressors = {None: None, "gzip": zarr.codecs.GzipCodec()}.get(self.compression, "auto")
        first = next(iter(self.datasets))
        group = zarr.create_group(
            store=str(path), attributes=image_attributes(self.path.stem, first, attributes[first])
        )
        for name, channels in self.datasets.items():
            group.create_array(
                name,
                shape=(channels, *self.shape),
                dtype="float32",
                chunks=(1, *self._shape_of(_CHUNK)),
                shards=(1, *shard),
                compressors=compressors,
                fill_value=float("nan"),
                dimension_names=("c", "z", "y", "x"),
                attributes={key: plain(value) for key, value in attributes[name].items()},
            )

    @property
    def boxes(self) -> Mapping[int, Place]:
        numbered = enumerate(self._held["boxes"])
        return {number: box for number, box in numbered if (number + self.turn) % self.share.count == self.share.index}

    @property
    def is_shared(self) -> bool:
        return self.share.count > 1

    def finished(self, box: int) -> int:
        with suppress(OSError, ValueError):
            return int((self._directory / _FINISHED / str(box)).read_text())
        return 0

    def write(self, box: int, layer: int, values: Mapping[str, Array]) -> None:
        z, y, x = self._held["boxes"][box]
        with writing(self.path):
            for name, planes in values.items():
                first = z.start + layer * self.planes
                array = package().open_array(store=str(self._directory / _ARRAYS), path=name, mode="r+")
                array[:, first : first + planes.shape[1], y, x] = planes
            write_whole(self._directory / _FINISHED / str(box), lambda path: path.write_text(str(layer + 1)))

    def kept(self) -> tuple[int, int]:
        if "boxes" not in self._held:
            self._read_layout()
        boxes = self._held["boxes"]
        layers = [-(-(z.stop - z.start) // self.planes) for z, _, _ in boxes]
        return sum(self.finished(number) for number in range(len(boxes))), sum(layers)

    def _unfinished(self) -> list[int]:
        """The processes that have not finished their parts, counted from 1, as jobs are."""
        found = set()
        for number, (z, _, _) in enumerate(self._held["boxes"]):
            if self.finished(number) < -(-(z.stop - z.start) // self.planes):
                found.add((number + self.turn) % self.share.count + 1)
        return sorted(found)

    def complete(self) -> bool:
        claim, old = self._directory / _CLAIM, self._directory / REPLACED
        with writing(self.path):
            count, layers = self.kept()
            if count < layers:
                # counters of other machines may come late over a network
                parts = ", ".join(f"{part}/{self.share.count}" for part in self._unfinished())
                say(
                    f"{self.path}: {count} of {layers} layers are finished; processes {parts} have the rest. Start "
                    "those again that are not running"
                )
                return False
            try:
                claim.open("x").close()
            except (FileExistsError, FileNotFoundError):
                return False  # another process has been faster
            try:
                if self.path.exists():
                    self.path.rename(old)
                (self._directory / _ARRAYS).rename(self.path)
            except OSError:
                if old.exists() and not self.path.exists():
                    old.rename(self.path)
                claim.unlink()
                raise
            shutil.rmtree(self._directory, ignore_errors=True)
        return True
