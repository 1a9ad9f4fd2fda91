"""The size of patches and of the network: what fits into the volumes and into memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from p3d_regression.planning.fingerprint import Fingerprint
from p3d_regression.planning.machine import Machine
from p3d_regression.text import as_size
from p3d_regression.upstream.networks import memory_of_training

#: Sides of a patch along Y and X that pytorch-3dunet accepts are at least this.
LEAST = 64

#: Sides that are tried.
_SIDES = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512)

#: Voxels of a batch on a processor, where a training step of more takes many seconds.
_MOST_ON_CPU = 2**17

#: Voxels of a batch, at most: more hardly help.
_MOST = 2**22

#: Memory of a step, as a multiple of what is kept for the gradient: gradients and workspaces come to it.
#: Measured: 1.9 to 2.5.
_FACTOR = 2.5

#: Bytes for each weight: itself, its gradient and two moments of Adam.
_PER_WEIGHT = 16

#: Samples of a batch, at most.
_MOST_SAMPLES = 8


@dataclass(frozen=True)
class Size:
    """The size of patches and network.

    Attributes:
        patch: (Z, Y, X).
        f_maps: channels of each level.
        batch: patches of a batch.
        memory: of a training step, in bytes, about.
        limit: what keeps patches from being larger, in words.
    """

    patch: tuple[int, int, int]
    f_maps: list[int]
    batch: int
    memory: int
    limit: str

    @property
    def is_2d(self) -> bool:
        """Whether planes are treated one by one."""
        return self.patch[0] == 1

    @property
    def is_small(self) -> bool:
        """Whether pytorch-3dunet has to be told to accept it."""
        return min(self.patch[1:]) < LEAST


def choose(found: Fingerprint, machine: Machine, smallest: Sequence[int], outputs: int) -> Size:
    """The largest patch of cubes in space that fits, and a network with as many levels as it allows.

    Args:
        found: of the volumes.
        machine: that trains.
        smallest: of the volumes along each axis, as they are trained on.
        outputs: channels of the network.
    """
    is_2d = smallest[0] < 4
    first = 16 if machine.device == "cpu" else 32
    best: tuple[int, int, int] | None = None
    limit = "as large as the smallest volume"
    for side in _SIDES:
        patch = _patch(side, found.anisotropy, smallest, is_2d=is_2d)
        f_maps = _f_maps(first, patch, machine)
        allowed, what = _most_voxels(found, machine, f_maps, outputs, is_2d=is_2d)
        if best is not None and math.prod(patch) > allowed:
            limit = what if patch != best else limit
            break
        best = patch
    assert best is not None
    f_maps = _f_maps(first, best, machine)
    allowed, _ = _most_voxels(found, machine, f_maps, outputs, is_2d=is_2d)
    batch = max(1, min(_MOST_SAMPLES, allowed // math.prod(best)))
    memory = _memory(found, f_maps, outputs, batch * math.prod(best), is_2d=is_2d)
    return Size(best, f_maps, batch, memory, limit)


def _patch(side: int, anisotropy: float, smallest: Sequence[int], *, is_2d: bool) -> tuple[int, int, int]:
    y, x = (_side(min(side, n)) for n in smallest[1:])
    depth = max(4, 4 * round(side / max(anisotropy, 1.0) / 4))
    return 1 if is_2d else _depth(min(depth, smallest[0])), y, x


def _side(n: int) -> int:
    """Without a remainder at the first levels, where that is possible."""
    return n // 16 * 16 if n >= LEAST else n


def _depth(n: int) -> int:
    return n // 4 * 4 if n >= 8 else n


def _f_maps(first: int, patch: Sequence[int], machine: Machine) -> list[int]:
    """Twice the channels at each level; the shortest axis has two voxels or more at the last one.

    pytorch-3dunet's networks halve all three axes from level to level.
    """
    sides = patch[1:] if patch[0] == 1 else patch
    most = 3 if machine.device == "cpu" else 4
    levels = max(2, min(most, int(math.log2(min(sides)))))
    return [first * 2**level for level in range(levels)]


def _section(found: Fingerprint, f_maps: list[int], outputs: int, *, is_2d: bool) -> dict[str, object]:
    name = "UNet2D" if is_2d else "UNet3D"
    section = {"name": name, "in_channels": len(found.raw), "out_channels": outputs, "f_maps": f_maps}
    return section | {"num_groups": 8, "is_segmentation": False}


_measured: dict[str, tuple[float, int]] = {}


def _per_voxel(found: Fingerprint, f_maps: list[int], outputs: int, *, is_2d: bool) -> tuple[float, int]:
    """Bytes that a voxel of a patch takes in a training step, and those of the weights; measured once."""
    section = _section(found, f_maps, outputs, is_2d=is_2d)
    if str(section) not in _measured:
        shape = (1, 64, 64) if is_2d else (16, 32, 32)
        kept, weights = memory_of_training(section, shape)
        _measured[str(section)] = _FACTOR * kept / math.prod(shape), _PER_WEIGHT * weights
    return _measured[str(section)]


def _most_voxels(
    found: Fingerprint, machine: Machine, f_maps: list[int], outputs: int, *, is_2d: bool
) -> tuple[int, str]:
    """How many voxels a batch may have, and why not more."""
    per_voxel, weights = _per_voxel(found, f_maps, outputs, is_2d=is_2d)
    by_memory = int(max(0, machine.memory - weights) / per_voxel)
    limits = {
        by_memory: f"about what fits into {as_size(machine.memory)}",
        _MOST: "larger ones hardly help",
    }
    if machine.device == "cpu":
        limits[_MOST_ON_CPU] = "small, because there is no GPU"
    least = min(limits)
    return least, limits[least]


def _memory(found: Fingerprint, f_maps: list[int], outputs: int, voxels: int, *, is_2d: bool) -> int:
    per_voxel, weights = _per_voxel(found, f_maps, outputs, is_2d=is_2d)
    return int(per_voxel * voxels + weights)
