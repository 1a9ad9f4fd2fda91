"""Which volumes are for training, validation and prediction, and the files in which pytorch-3dunet finds them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p3d_regression.conversion.pairing import Pair
from p3d_regression.conversion.run import HDF5, Progress, to_hdf5
from p3d_regression.conversion.source import Box
from p3d_regression.errors import VolumesError
from p3d_regression.planning.decisions import Files
from p3d_regression.planning.fingerprint import VolumeInfo
from p3d_regression.planning.size import LEAST
from p3d_regression.text import as_size
from p3d_regression.upstream import introspection
from p3d_regression.volumes import image_file

PHASES = ("train", "val", "test")

#: One volume of so many is for validation, and from so many on there is one that is only predicted.
_ONE_OF, _MANY = 6, 5

#: Planes from which a single volume is divided along Z.
_PLANES = 48

#: Of a single volume, the part for validation; and voxels between the parts, at most.
_VALIDATED, _GAP = 0.25, 16


@dataclass(frozen=True)
class Part:
    """A volume, or a part of one, in a phase.

    Attributes:
        info: of the volume.
        phase: ``train``, ``val`` or ``test``.
        box: the part; None for all of it.
        name: of its file, without suffix.
    """

    info: VolumeInfo
    phase: str
    box: Box | None
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape if self.box is None else tuple(axis.stop - axis.start for axis in self.box)


@dataclass(frozen=True)
class Split:
    """The volumes of each phase.

    Attributes:
        parts: of all phases.
        why: they are divided in this way.
        why_test: the volumes to predict are these.
    """

    parts: Sequence[Part]
    why: str
    why_test: str

    def of(self, phase: str) -> list[Part]:
        """The parts of a phase; what selects the best checkpoint is predicted where there is nothing else."""
        found = [part for part in self.parts if part.phase == phase]
        return found or ([part for part in self.parts if part.phase == "val"] if phase == "test" else [])

    @property
    def smallest(self) -> tuple[int, ...]:
        """Along each axis, of the parts that are trained and validated on."""
        return tuple(min(part.shape[axis] for part in self.parts) for axis in range(3))


def split(volumes: Sequence[VolumeInfo]) -> Split:
    """Divide volumes among the phases; a single one is cut into two blocks with a gap between them.

    Raises:
        VolumesError: there is one volume, too small to be cut.
    """
    optimistic = "the same as for validation, which selected the checkpoint: the score is a little too good"
    if len(volumes) == 1:
        parts, axis, gap = _blocks(volumes[0])
        why = (
            f"one volume: two blocks along {axis} with {gap} voxels between them; validate on another volume to know "
            "more"
        )
        return Split(parts, why, optimistic)
    n = len(volumes)
    held = max(1, round(n / _ONE_OF))
    with_test = n >= _MANY
    # spread evenly, because neighbours in a list are often alike
    chosen = [
        int((index + 0.5) * n / (held * (2 if with_test else 1))) for index in range(held * (2 if with_test else 1))
    ]
    phases = dict(zip(chosen, ["val", "test"] * held if with_test else ["val"] * held, strict=False))
    parts = [Part(info, phases.get(index, "train"), None, info.pair.name) for index, info in enumerate(volumes)]
    counts = {phase: sum(part.phase == phase for part in parts) for phase in PHASES}
    why = f"{counts['train']} of {n} volumes; {counts['val']} for validation"
    if with_test:
        return Split(parts, f"{why}, {counts['test']} only to be predicted", "neither trained nor validated on")
    return Split(parts, why, optimistic)


def _blocks(info: VolumeInfo) -> tuple[list[Part], str, int]:
    sizes = info.shape
    axis = 0 if sizes[0] >= _PLANES else max((1, 2), key=lambda a: sizes[a])
    least = LEAST if axis else 16
    gap = min(_GAP, sizes[axis] // 10)
    held = max(least, round(_VALIDATED * sizes[axis]))
    if sizes[axis] - held - gap < least and axis:
        # two halves without a gap are better than nothing
        gap, held = max(0, min(gap, sizes[axis] - 2 * least)), least
    if sizes[axis] - held - gap < (least if axis else 1):
        raise VolumesError(
            f"there is one volume, of the shape {sizes} (Z, Y, X): too small to be divided into a part for training "
            f"and one for validation, which takes {2 * LEAST} voxels along Y or X, or {_PLANES} planes. Add a volume."
        )
    start = sizes[axis] - held
    boxes = []
    for first, stop in ((0, start - gap), (start, sizes[axis])):
        box = [slice(0, n) for n in sizes]
        box[axis] = slice(first, stop)
        boxes.append((box[0], box[1], box[2]))
    name = info.pair.name
    parts = [Part(info, phase, box, f"{name}_{phase}") for phase, box in zip(("train", "val"), boxes, strict=True)]
    return parts, "ZYX"[axis], gap


def is_in_place(parts: Sequence[Part]) -> bool:
    """Whether pytorch-3dunet can read the files as they are: pairs in one file each, under the same names."""
    keys = {_keys(part.info.pair) for part in parts}
    if len(keys) != 1 or None in keys or any(part.box is not None for part in parts):
        return False
    # the dataset for Zarr puts axes into the order of a volume
    return all(part.info.is_plain or part.info.pair.raw[0].path.is_dir() for part in parts)


def _keys(pair: Pair) -> tuple[str, str, bool] | None:
    """The names of the datasets of a pair in one HDF5 file or Zarr store; None where it is in several."""
    sources = (*pair.raw, *pair.label)
    first = sources[0]
    is_zarr = first.path.is_dir()
    if len(sources) != 2 or sources[1].path != first.path or image_file.format_of(first.path):
        return None
    if not is_zarr and not first.path.name.lower().endswith(HDF5):
        return None
    return first.key, sources[1].key, is_zarr


def directory_of(out: Path) -> Path:
    """Where volumes are written that pytorch-3dunet cannot read as they are."""
    return out / "hdf5"


def files_of(found: Split, out: Path, ram: int) -> Files:
    """The files of each phase, as a config names them.

    Args:
        found: the volumes.
        out: directory of the configs.
        ram: memory of the machine, in bytes.
    """
    in_place = is_in_place(found.parts)
    paths: dict[str, list[str]] = {}
    for phase in PHASES:
        parts = found.of(phase)
        paths[phase] = [str(part.info.pair.raw[0].path) for part in parts]
        if not in_place:
            paths[phase] = [str(directory_of(out) / parts[0].phase)]
    raw, label, is_zarr = (_keys(found.parts[0].info.pair) if in_place else None) or ("raw", "label", False)
    trained = [part for part in found.parts if part.phase != "test"]
    size = sum(part.info.bytes * math.prod(part.shape) // part.info.voxels for part in trained)
    dataset, why = "StandardHDF5Dataset", f"the volumes, {as_size(size)}, are held in memory"
    if is_zarr:
        dataset, why = "ZarrDataset", "reads patches when they are needed"
    # what is read is converted to 4 bytes a value, and a validation may begin while workers hold theirs
    elif 4 * size > ram and introspection.dataset_class("LazyHDF5Dataset") is not None:
        dataset, why = "LazyHDF5Dataset", f"patches are read when they are needed: {as_size(size)} in all"
    shapes = [part.shape for part in found.of("train")]
    return Files(
        paths["train"], paths["val"], paths["test"], shapes, raw, label, dataset, why, found.why, found.why_test
    )


def write_volumes(found: Split, out: Path, progress: Progress) -> list[Path]:
    """Write the volumes that pytorch-3dunet cannot read as they are.

    Raises:
        VolumesError: one cannot be read or written.
    """
    if is_in_place(found.parts):
        return []
    written = []
    for part in found.parts:
        path = directory_of(out) / part.phase / f"{part.name}.h5"
        to_hdf5(part.info.pair, path, progress, part.box)
        written.append(path)
    return written
