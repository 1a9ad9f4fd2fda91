"""Exact statistics of label volumes that are larger than memory, gathered block by block.

Knows nothing of pytorch3dunet: a :class:`Volume` says where the patches lie, how to read them and what is done to them.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, Protocol

import numpy as np

from p3d_regression.labels.moments import Array, Block, Moments, Weights

#: Voxels that are read at once. More would not be read faster.
_BLOCK = 2**21

#: Voxels that are computed with at once: what fits into a processor's cache.
_PIECE = 2**18

#: Called with the number of voxels (of overlapping patches: counted once) that have just been read.
Tick = Callable[[int], None]

#: Opens what a volume is read from; inside, what it gives returns a part: an array of shape (D, H, W) or (C, D, H, W).
Opened = Callable[[], AbstractContextManager[Callable[[Any], Array]]]


class VolumeError(RuntimeError):
    """A volume cannot be read or transformed; the message names its file."""


class Measure(Protocol):
    """A loss or a metric that is followed through the labels."""

    #: whether it has to be told where one patch ends and the next one begins
    by_patch: bool

    def add(self, channel: int, block: Block, moments: Moments) -> None:
        """Take in a block and its moments."""

    def end_patch(self) -> None:
        """The blocks since the last call were one patch."""


@dataclass(frozen=True)
class Volume:
    """The labels of one file, as pytorch-3dunet cuts and transforms them.

    Attributes:
        path: of the file.
        patches: what is read, one per patch in pytorch-3dunet's order: slices of a dataset of shape (D, H, W) or
            (C, D, H, W), or whatever else it is that the patches are known by.
        opened: opens the file for as long as it is read.
        transform: from what is read to what the loss sees: shape (D, H, W) or (C, D, H, W).
        shape: of the dataset; None if the patches are not slices of one.
        chunks: as it is stored; None if that is not in chunks.
        voxelwise: whether ``transform`` looks at each voxel on its own, so that it can be applied to other parts than
            patches.
    """

    path: str
    patches: Sequence[Any]
    opened: Opened
    transform: Callable[[Array], Array]
    shape: tuple[int, ...] | None = None
    chunks: tuple[int, ...] | None = None
    voxelwise: bool = False

    def voxels(self, *, by_patch: bool = False) -> int:
        """To be read, as :data:`Tick` counts them; 0 where that is not known."""
        if self.shape is None:
            return 0
        if self._covers is not None and not by_patch:
            channels = math.prod(part.stop - part.start for part in self._channels)
            return int(channels * math.prod(self.shape[-3:]))
        return sum(math.prod(s.stop - s.start for s in patch) for patch in self.patches)

    @cached_property
    def _covers(self) -> Weights | None:
        """How often the patches cover each voxel; None if that is no product over the axes, or not at all."""
        if not self.voxelwise or self.shape is None or not self.patches:
            return None
        axes = [sorted({(p[axis].start, p[axis].stop) for p in self.patches}) for axis in (-3, -2, -1)]
        if math.prod(map(len, axes)) != len(self.patches):
            return None
        weights = [np.zeros(n) for n in self.shape[-3:]]
        for weight, spans in zip(weights, axes, strict=True):
            for start, stop in spans:
                weight[start:stop] += 1
        # voxels between patches must not count, also where they are NaN
        return Weights(*weights) if all(weight.all() for weight in weights) else None

    def blocks(self, *, by_patch: bool = False) -> Generator[tuple[Array, Weights, int], None, None]:
        """Transformed labels with their weights, and how many voxels have been read for them.

        Args:
            by_patch: whether each block has to be one patch.
        """
        covers = None if by_patch else self._covers
        with self.opened() as read:
            if covers is None:
                for patch in self.patches:
                    part = read(patch)
                    values = self.transform(part)
                    yield values, Weights.ones(values.shape[-3:]), part.size
                return
            for box in self.boxes():
                part, (z, y, x) = read(box), box[-3:]
                yield self.transform(part), Weights(covers.z[z], covers.y[y], covers.x[x]), part.size

    def stored(self) -> Generator[Array, None, None]:
        """The whole dataset in parts, as it is stored, every voxel once."""
        with self.opened() as read:
            for box in self.boxes():
                yield read(box)

    @property
    def _channels(self) -> tuple[slice, ...]:
        """What the patches take of the channels of a dataset of shape (C, D, H, W)."""
        assert self.shape is not None
        # pytorch-3dunet may take them from the raw volume, which may have fewer or more
        return tuple(slice(*s.indices(n)[:2]) for s, n in zip(self.patches[0][:-3], self.shape[:-3], strict=True))

    def boxes(self) -> Iterator[tuple[slice, ...]]:
        """Parts of the dataset along the borders of its chunks, so that each of these is read once."""
        assert self.shape is not None
        shape, channels = self.shape[-3:], self._channels
        step = list((self.chunks or (1, 1, 1))[-3:])
        for axis in (2, 1, 0):
            room = _BLOCK // max(1, math.prod(c.stop - c.start for c in channels) * math.prod(step))
            step[axis] *= max(1, min(room, -(-shape[axis] // step[axis])))
        starts = [range(0, n, size) for n, size in zip(shape, step, strict=True)]
        for corner in product(*starts):
            spatial = [slice(c, min(c + size, n)) for c, size, n in zip(corner, step, shape, strict=True)]
            yield (*channels, *spatial)


@dataclass
class Statistics:
    """What is known of the labels of some volumes.

    Attributes:
        channels: moments of each channel, without the measures' own view.
        has_channel_axis: whether the loss sees (N, C, D, H, W); None before anything was read.
        ignored: how many labels do not count; the others are in ``channels``.
        complete: whether everything has been read.
    """

    channels: list[Moments] = field(default_factory=list)
    has_channel_axis: bool | None = None
    ignored: float = 0.0
    complete: bool = False


def scan(
    volumes: Sequence[Volume],
    measures: Sequence[Measure],
    statistics: Statistics,
    tick: Tick,
    counts: Callable[[Array], Array] | None = None,
) -> None:
    """Read the volumes once and fill ``statistics`` and ``measures`` in, which hold what is known at any time.

    Memory: a few blocks of about two million voxels, or two patches.

    Args:
        volumes: to read.
        measures: to follow; those that are told of patches must not be asked of a part of the voxels.
        statistics: of the labels.
        tick: told of the progress.
        counts: from labels to which of them count, an array of bool; None for all.
    """
    by_patch = any(measure.by_patch for measure in measures)
    for volume in volumes:
        with _named(volume), np.errstate(over="ignore", invalid="ignore"):
            for values, weights, read in _ahead(volume.blocks(by_patch=by_patch)):
                _take_in(values, weights, measures, statistics, counts)
                if by_patch:
                    for measure in measures:
                        measure.end_patch()
                tick(read)
    statistics.complete = True


@contextmanager
def _named(volume: Volume) -> Iterator[None]:
    """Errors say which file it was."""
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise VolumeError(f"{volume.path}: {type(error).__name__}: {lines[0]}") from error


def _take_in(
    values: Array,
    weights: Weights,
    measures: Sequence[Measure],
    statistics: Statistics,
    counts: Callable[[Array], Array] | None,
) -> None:
    statistics.has_channel_axis = values.ndim == 4
    for index, channel in enumerate(_channels(values)):
        if index == len(statistics.channels):
            statistics.channels.append(Moments())
        for piece in _pieces(channel, weights):
            block = piece if counts is None else piece.only(counts(piece.values))
            statistics.ignored += piece.weights.total - (block.weights.total if block else 0.0)
            if block is None:
                continue
            moments = Moments.of(block)
            statistics.channels[index].merge(moments)
            for measure in measures:
                measure.add(index, block, moments)


def _channels(values: Array) -> Array:
    """With a channel axis, also where there was none."""
    return values if values.ndim == 4 else values[None]


def _pieces(channel: Array, weights: Weights) -> Iterator[Block]:
    depth, height, width = channel.shape
    rows = max(1, min(height, _PIECE // width))
    planes = max(1, _PIECE // (width * height)) if rows == height else 1
    for z, y in product(range(0, depth, planes), range(0, height, rows)):
        part = (slice(z, z + planes), slice(y, y + rows))
        yield Block(channel[part], Weights(weights.z[part[0]], weights.y[part[1]], weights.x))


def _ahead(items: Generator[Any, None, None]) -> Iterator[Any]:
    """The same items, the next one being made while the last one is used: reading decompresses on another core."""
    nothing = object()
    with closing(items), ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, items, nothing)
        while (item := coming.result()) is not nothing:
            coming = pool.submit(next, items, nothing)
            yield item


def moments_of(volume: Volume, tick: Tick) -> Moments:
    """Of a whole dataset, as it is stored, every voxel once."""
    moments = Moments()
    with _named(volume), np.errstate(over="ignore", invalid="ignore"):
        for values in _ahead(volume.stored()):
            for channel in _channels(values):
                for block in _pieces(channel, Weights.ones(channel.shape)):
                    moments.merge(Moments.of(block))
            tick(values.size)
    return moments
