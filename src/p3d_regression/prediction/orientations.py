"""Test-time augmentation: orientations in which a network sees a patch, and the way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.prediction.spec import TTA, Tta

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Orientation:
    """How a patch is turned before the network sees it.

    Attributes:
        axes: for each axis of the turned patch the axis of the volume that lies there.
        mirrored: whether each axis of the turned patch is then mirrored.
        directions: for an axis of the volume the output channel that is the component of a vector along it.
    """

    axes: tuple[int, ...]
    mirrored: tuple[bool, ...]
    directions: Mapping[int, int]

    @property
    def _dims(self) -> list[int]:
        return [2 + axis for axis, is_mirrored in enumerate(self.mirrored) if is_mirrored]

    def turn(self, patches: "Tensor") -> "Tensor":
        """Patches as the network sees them; shape (N, C, D, H, W)."""
        return patches.permute(0, 1, *(2 + axis for axis in self.axes)).flip(self._dims)

    def back(self, output: "Tensor") -> "Tensor":
        """What the network makes of turned patches, as it lies in the volume; components of vectors are turned back."""
        order = [self.axes.index(axis) for axis in range(3)]
        found = output.flip(self._dims).permute(0, 1, *(2 + axis for axis in order))
        if not self.directions:
            return found
        turned = found.clone()
        for axis, channel in self.directions.items():
            # along the axis of the turned patch that this axis of the volume has become
            along = order[axis]
            component = found[:, self.directions[along]]
            turned[:, channel] = -component if self.mirrored[along] else component
        return turned


def orientations_of(tta: Tta | None, shape: Sequence[int], spacing: Sequence[float] | None) -> list[Orientation]:
    """The orientations of a patch; the first one is its own.

    Args:
        tta: which.
        shape: of a patch with its halo, (D, H, W).
        spacing: of the voxels along Z, Y and X, if it is known. Axes are exchanged where it is the same; where it is
            not known, Y and X alone.

    Raises:
        ConfigError: no axes can be exchanged.
    """
    if tta is None:
        return [Orientation((0, 1, 2), (False,) * 3, {})]
    sides = [(n, step) for n, step in zip(shape, spacing or ("z", "yx", "yx"), strict=True)]
    orders = [axes for axes in permutations(range(3)) if [sides[axis] for axis in axes] == sides]
    if tta.rotates and len(orders) == 1:
        message = (
            f"rotations exchanges axes, but no two axes of the patches {list(shape)} (with halo) have the same length "
            "and voxel size."
        )
        raise ConfigError(TTA, message, write(TTA, "flips"))
    flips = list(product(*((False, True) if n > 1 else (False,) for n in shape)))
    return [
        Orientation(axes, flip, tta.directions) for axes in (orders if tta.rotates else orders[:1]) for flip in flips
    ]
