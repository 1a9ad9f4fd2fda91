"""What the files of a phase hold: ``train``, ``val`` or ``test``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from p3d_regression.errors import ConfigError
from p3d_regression.labels.floor import Bound, Limit
from p3d_regression.labels.levels import Clipping, Directions, Levels
from p3d_regression.labels.moments import Moments
from p3d_regression.labels.scan import Statistics
from p3d_regression.training.scaling import Lines


def is_shape(value: object, least: int = 1) -> TypeGuard[list[int]]:
    """Whether a config's value is three whole numbers, for Z, Y and X."""
    return isinstance(value, list) and len(value) == 3 and all(isinstance(n, int) and n >= least for n in value)


@dataclass(frozen=True)
class Stored:
    """A dataset of a file.

    Attributes:
        shape: of it.
        dtype: of it.
        spacing: the size of a voxel along Z, Y and X, if its attributes give it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: Sequence[float] | None = None

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[-3:]


@dataclass
class FileLayout:
    """A file of a phase.

    Attributes:
        path: of it.
        error: why it cannot be read.
        datasets: names of its datasets.
        raw, label: None where they are missing or not needed.
        padded: the dataset ``raw_padded`` that a lazy prediction of pytorch-3dunet has written.
        padded_is_other: whether its middle part is not the raw volume.
        raw_moments: of the raw volume; None if it was not read.
    """

    path: str
    error: str | None = None
    datasets: list[str] = field(default_factory=list)
    raw: Stored | None = None
    label: Stored | None = None
    padded: Stored | None = None
    padded_is_other: bool = False
    raw_moments: Moments | None = None

    def is_smaller_than(self, patch: Sequence[int]) -> bool:
        """Whether a patch of shape (D, H, W) does not fit into the raw volume."""
        size = self.raw.spatial if self.raw else ()
        return len(size) == 3 and any(p > n for p, n in zip(patch, size, strict=True))


@dataclass
class Phase:
    """The data of one phase of a config.

    Attributes:
        files: its files; empty if there are none, or the dataset class does not read HDF5.
        is_hdf5: whether the dataset class reads HDF5 files.
        raw_path, label_path: of the datasets in the files.
        statistics: of the labels that the loss is given; None if they were not read.
        limits: of the loss and the metric, by name: the best value on these labels.
        failure: error of pytorch-3dunet or HDF5 when the data were read.
        broken_transforms: keys of transforms that fail on a patch, and their errors.
        levels: of raw patches and their labels; None if they were not looked at, as with the next three.
        lines: through raw values and labels; None also where it is not clear which channels belong together.
        lines_error: why there are none.
        directions: of the labels.
        clipping: of the labels by their transforms; None also where these do not look at single voxels.
        changed_by_cast: whether labels are cast to a type that cannot hold them; known in a regression.
    """

    files: list[FileLayout]
    is_hdf5: bool
    raw_path: str
    label_path: str
    statistics: Statistics | None = None
    limits: dict[str, Limit] = field(default_factory=dict)
    failure: str | None = None
    broken_transforms: list[tuple[str, str]] = field(default_factory=list)
    changed_by_cast: bool = False
    levels: Levels | None = None
    lines: Lines | None = None
    lines_error: ConfigError | None = None
    directions: Directions | None = None
    clipping: Clipping | None = None
    _bounds: dict[str, Bound] | None = None

    def bounds(self) -> dict[str, Bound]:
        """The best values of loss and metric, by name, from all that was read."""
        if self._bounds is None:
            self._bounds = {name: limit.bound() for name, limit in self.limits.items()}
        return self._bounds
