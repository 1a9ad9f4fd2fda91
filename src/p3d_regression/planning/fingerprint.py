"""What the volumes of a data set hold, as far as samples of them tell."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from p3d_regression.conversion.pairing import Pair
from p3d_regression.conversion.source import Box, Volume, together
from p3d_regression.errors import VolumesError
from p3d_regression.labels.brightness import dependence
from p3d_regression.labels.levels import Directions, Levels
from p3d_regression.labels.linear import Pairs, RawAndLabels
from p3d_regression.labels.moments import Array, Block, Moments, Weights
from p3d_regression.volumes.geometry import spacing_of

#: Voxels up to which all are read; of more, samples.
MOST_VOXELS = 100_000_000

#: A sample, and the patches that it is cut into.
_SAMPLE, _PATCH = (16, 256, 256), (16, 64, 64)

#: Different values of a channel that are counted.
_MOST_VALUES = 20


@dataclass
class Values:
    """The values of one channel.

    Attributes:
        moments: of them.
        zeros: how many are exactly 0.
        are_whole: whether all that are finite are whole numbers.
        distinct: the different ones, as long as they are few; None for many.
    """

    moments: Moments = field(default_factory=Moments)
    zeros: int = 0
    are_whole: bool = True
    distinct: set[float] | None = field(default_factory=set)

    def add(self, values: Array) -> None:
        """Take in a part of a volume, shape (D, H, W)."""
        self.moments.merge(Moments.of(Block(values, Weights.ones(values.shape))))
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        self.zeros += int(np.count_nonzero(finite == 0))
        self.are_whole = self.are_whole and (finite.dtype.kind != "f" or bool((finite == np.round(finite)).all()))
        if self.distinct is not None:
            # most volumes show in a few values that they have many
            few = finite.ravel()[:: max(1, finite.size // 1000)]
            self.distinct |= set(np.unique(few).tolist())
            if len(self.distinct) <= _MOST_VALUES:
                self.distinct |= set(np.unique(finite).tolist())
            if len(self.distinct) > _MOST_VALUES:
                self.distinct = None

    def without(self, value: float | None) -> "Values":
        """The same without the smallest or largest value, which stands where there is no label."""
        m = self.moments
        if value is None or value not in (m.low, m.high):
            return self
        is_low = value == m.low
        left, gone = m.finite, m.at_low if is_low else m.at_high
        rest = left - gone
        mean = m.mean + (m.mean - value) * gone / rest
        m2 = m.m2 - gone * (value - m.mean) ** 2 - rest * (mean - m.mean) ** 2
        others = replace(
            m,
            count=m.count - gone,
            mean=mean,
            m2=max(m2, 0.0),
            low=m.second_low if is_low else m.low,
            high=m.high if is_low else m.second_high,
            at_low=0.0 if is_low else m.at_low,
            at_high=m.at_high if is_low else 0.0,
        )
        distinct = None if self.distinct is None else self.distinct - {value}
        return replace(self, moments=others, distinct=distinct)

    @property
    def is_mask(self) -> bool:
        """Whether it has the values 0 and 1, and no others."""
        return self.distinct == {0.0, 1.0}

    @property
    def share_of_zeros(self) -> float:
        return self.zeros / self.moments.finite if self.moments.finite else 0.0

    @property
    def share_of_nan(self) -> float:
        return self.moments.nan / self.moments.count if self.moments.count else 0.0

    @property
    def has_outliers(self) -> bool:
        """Whether some are many standard deviations away."""
        m = self.moments
        return m.std > 0 and max(m.high - m.mean, m.mean - m.low) > 12 * m.std


@dataclass(frozen=True)
class VolumeInfo:
    """A pair of a raw volume and its labels.

    Attributes:
        pair: of them.
        shape: of both (Z, Y, X).
        channels: of the raw volume and of the labels.
        spacing: the size of a voxel (Z, Y, X); None if it is not known.
        bytes: of both, as they are in memory.
        is_plain: whether pytorch-3dunet could read both as they are stored: (Z, Y, X), or several channels before.
    """

    pair: Pair
    shape: tuple[int, int, int]
    channels: tuple[int, int]
    spacing: list[float] | None
    bytes: int
    is_plain: bool

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)


@dataclass
class Fingerprint:
    """What volumes hold.

    Attributes:
        volumes: all of them.
        raw, label: the values of each channel.
        lines: for each channel of the labels and each of the raw volumes the pairs of their values.
        directions: of the labels.
        read: voxels that were looked at, of each channel.
        brightness: how the labels depend on the brightness of the raw volume, in words; empty if they do not.
    """

    volumes: Sequence[VolumeInfo]
    raw: list[Values]
    label: list[Values]
    lines: list[list[Pairs]]
    directions: Directions = field(default_factory=Directions)
    read: int = 0
    brightness: str = ""

    @property
    def voxels(self) -> int:
        return sum(volume.voxels for volume in self.volumes)

    @property
    def is_complete(self) -> bool:
        """Whether all voxels were looked at."""
        return self.read >= self.voxels

    @property
    def smallest(self) -> tuple[int, int, int]:
        """Of the volumes along each axis."""
        z, y, x = (min(volume.shape[axis] for volume in self.volumes) for axis in range(3))
        return z, y, x

    @property
    def anisotropy(self) -> float:
        """How many times larger voxels are along Z than along Y and X; 1 where this is not known."""
        known = [volume.spacing for volume in self.volumes if volume.spacing]
        ratios = [z / math.sqrt(y * x) for z, y, x in known if min(z, y, x) > 0]
        return float(np.median(ratios)) if ratios else 1.0

    def best_raw(self, channel: int) -> tuple[int, float]:
        """The raw channel whose line explains most of a channel of the labels, and the share of its variance."""
        shares = [pairs.explained for pairs in self.lines[channel]]
        best = max(range(len(shares)), key=shares.__getitem__)
        return best, shares[best]


#: Called with the number of voxels that were read.
Advance = Callable[[int], None]


def look(pairs: Sequence[Pair]) -> list[VolumeInfo]:
    """The shapes of volumes.

    Raises:
        VolumesError: one cannot be read, has no labels, or they differ in their channels.
    """
    found: list[VolumeInfo] = []
    for pair in pairs:
        with together(pair.raw) as raw, together(pair.label) as label:
            if raw.spatial != label.spatial:
                raise VolumesError(
                    f"{pair.raw[0]} has the shape {raw.spatial} (Z, Y, X), but {pair.label[0]} has {label.spatial}: "
                    "they are not the same voxels."
                )
            size = math.prod(raw.shape) * raw.dtype.itemsize + math.prod(label.shape) * label.dtype.itemsize
            channels = (raw.shape[0], label.shape[0])
            spacing = spacing_of(raw.attrs) or spacing_of(label.attrs)
            is_plain = _is_plain(raw) and _is_plain(label)
            info = VolumeInfo(pair, raw.spatial, channels, spacing, size, is_plain)
        if found and info.channels != found[0].channels:
            raise VolumesError(
                f"{pair.raw[0]} and its labels have {info.channels[0]} and {info.channels[1]} channels, but "
                f"{found[0].pair.raw[0]} has {found[0].channels[0]} and {found[0].channels[1]}."
            )
        found.append(info)
    return found


def _is_plain(volume: Volume) -> bool:
    """Whether it is one dataset, without an axis for a single channel, and with one for planes."""
    (part, *others) = volume.parts
    stored = getattr(part, "stored_ndim", part.ndim)
    return not others and stored == (4 if volume.shape[0] > 1 else 3) and part.dtype.kind != "b"


def measure(volumes: Sequence[VolumeInfo], advance: Advance, *, most: int = MOST_VOXELS) -> Fingerprint:
    """Read volumes, or samples of them, and look at their values.

    Args:
        volumes: of :func:`look`.
        advance: told of the voxels that were read.
        most: voxels up to which all are read.

    Raises:
        VolumesError: one cannot be read.
    """
    raws, labels = volumes[0].channels
    lines = [[Pairs() for _ in range(raws)] for _ in range(labels)]
    found = Fingerprint(volumes, [Values() for _ in range(raws)], [Values() for _ in range(labels)], lines)
    levels, of_files = Levels(), []
    draw = np.random.default_rng(0)
    boxes = _boxes(volumes, draw, most)
    for info, places in zip(volumes, boxes, strict=True):
        of_file = RawAndLabels()
        with together(info.pair.raw) as raw, together(info.pair.label) as label:
            for place in places:
                _add(found, raw, label, place, levels, of_file)
                advance(math.prod(axis.stop - axis.start for axis in place))
        if of_file.voxels.count:
            of_files.append(of_file)
    found.brightness = dependence(levels, of_files if raws == 1 or raws == labels else [])
    return found


def _add(found: Fingerprint, raw: Volume, label: Volume, place: Box, levels: Levels, of_file: RawAndLabels) -> None:
    x, y = raw.read(place), label.read(place)
    for channels, parts in ((found.raw, x), (found.label, y)):
        for values, part in zip(channels, parts, strict=True):
            values.add(part)
    found.directions.add(y)
    found.read += y[0].size
    good = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    for lines, labels in zip(found.lines, y, strict=True):
        for pairs, values_of_raw in zip(lines, x, strict=True):
            pairs.merge(Pairs.of(values_of_raw[good].astype(np.float64), labels[good].astype(np.float64)))
    # of masks and several channels, only the first channel that is none
    followed = next((n for n, values in enumerate(found.label) if not values.is_mask), 0)
    of_raw = followed if x.shape[0] == y.shape[0] else 0
    for patch in _pieces(y.shape[1:], _PATCH):
        levels.add(x[of_raw][patch], x[of_raw][patch], y[followed][patch])
        of_file.add(x[of_raw][patch], y[followed][patch])


def _boxes(volumes: Sequence[VolumeInfo], draw: np.random.Generator, most: int) -> list[list[Box]]:
    """The parts of each volume that are read: all of it, or samples at random places."""
    every = [list(_pieces(info.shape, _SAMPLE)) for info in volumes]
    total = sum(info.voxels for info in volumes)
    if total <= most:
        return every
    counts = [max(1, int(most / total * len(boxes))) for boxes in every]
    # of very many volumes not each
    size = max(math.prod(axis.stop - axis.start for axis in boxes[0]) for boxes in every)
    if len(volumes) > (limit := max(1, most // size)):
        chosen = set(draw.choice(len(volumes), limit, replace=False).tolist())
        counts = [count if index in chosen else 0 for index, count in enumerate(counts)]
    picked = []
    for boxes, count in zip(every, counts, strict=True):
        indices = sorted(draw.choice(len(boxes), min(count, len(boxes)), replace=False).tolist())
        picked.append([boxes[index] for index in indices])
    return picked


def _pieces(shape: Sequence[int], size: Sequence[int]) -> Iterator[Box]:
    for z in range(0, shape[0], size[0]):
        for y in range(0, shape[1], size[1]):
            for x in range(0, shape[2], size[2]):
                starts = zip((z, y, x), size, shape, strict=True)
                a, b, c = (slice(start, min(start + step, n)) for start, step, n in starts)
                yield a, b, c
