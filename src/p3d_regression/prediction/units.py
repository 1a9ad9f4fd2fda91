"""Shares of a prediction: boxes of a volume that are predicted one by one, or by several processes at once.

A patch that reaches into several boxes is computed for each of them, so that nobody has to wait for anybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from p3d_regression.prediction.blending import Place

Counts = npt.NDArray[np.int64]

#: How much more may be computed because of the patches at the borders of boxes.
MOST_REPEATED = 1.3

#: Memory of a window in bytes: what it should not exceed, and what it may where more would be repeated otherwise.
_WANTED, _MOST = 2**28, 2**30


@dataclass(frozen=True)
class Layout:
    """How a volume is divided into boxes.

    Attributes:
        shape: of the volume, (D, H, W).
        step: the borders of boxes are multiples of it: (D, H, W) of what is stored in one piece.
        pieces: along Z, Y and X.
    """

    shape: tuple[int, ...]
    step: tuple[int, ...]
    pieces: tuple[int, ...]

    @property
    def boxes(self) -> list[Place]:
        """In the order of their numbers."""
        z, y, x = (_parts(*axis) for axis in zip(self.shape, self.step, self.pieces, strict=True))
        return [tuple(box) for box in product(z, y, x)]  # type: ignore[misc]


def _parts(size: int, step: int, pieces: int) -> list[slice]:
    """An axis in pieces that are equal up to a step."""
    cells = -(-size // step)
    borders = [number * cells // pieces * step for number in range(pieces)]
    return [slice(a, min(b, size)) for a, b in zip(borders, [*borders[1:], size], strict=True)]


def layout_of(
    places: Sequence[Place], shape: Sequence[int], step: Sequence[int], *, channels: int, processes: int
) -> Layout:
    """The layout with which the slowest of several processes has the least to do.

    Args:
        places: of the patches, a grid.
        shape: of the volume, (D, H, W).
        step: what the borders of boxes have to be multiples of.
        channels: that are blended.
        processes: that take the boxes in turn.

    Returns:
        Of the layouts within the limits of memory and of what is repeated, the best one. Where there is none, memory
        is kept.
    """
    spans = _spans(places)
    depth = max(stop - start for start, stop in spans[0]) + step[0]
    found = []
    axes = [_divisions(*axis) for axis in zip(shape, step, spans, strict=True)]
    for divisions in product(*axes):
        pieces, largest, touched = (tuple(column) for column in zip(*divisions, strict=True))
        repeated = prod(float(t.sum()) / len(along) for t, along in zip(touched, spans, strict=True))
        memory = depth * largest[1] * largest[2] * (channels + 1) * 4
        slowest = _slowest(touched, processes)
        limits = [memory > _MOST, repeated > MOST_REPEATED, memory > _WANTED]
        # what is above a limit is at least as little above it as can be
        beyond = [memory if limits[0] else 0, repeated if limits[1] else 0]
        found.append((limits, beyond, slowest, prod(pieces), pieces))
    return Layout(tuple(shape), tuple(step), min(found)[-1])


def _spans(places: Sequence[Place]) -> list[list[tuple[int, int]]]:
    """Start and stop of the patches of a grid along Z, Y and X, each once."""
    return [sorted({(place[axis].start, place[axis].stop) for place in places}) for axis in range(3)]


def repeated(places: Sequence[Place], boxes: Sequence[Place]) -> float:
    """How many times as many patches are computed in boxes as in the volume as a whole."""
    found = 1.0
    for axis, spans in enumerate(_spans(places)):
        parts = [slice(*ends) for ends in sorted({(box[axis].start, box[axis].stop) for box in boxes})]
        found *= float(_touched(parts, spans).sum()) / len(spans)
    return found


def _slowest(touched: Sequence[Counts], processes: int) -> float:
    """How many patches the process computes that has the most to do."""
    boxes = prod(map(len, touched))
    if boxes > 16 * processes:
        # nearly the mean, and there may be millions of boxes
        return prod(float(counts.sum()) for counts in touched) / processes
    patches = np.multiply.outer(np.multiply.outer(*touched[:2]), touched[2]).ravel()
    return max(float(patches[first::processes].sum()) for first in range(min(processes, boxes)))


def _divisions(size: int, step: int, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int, Counts]]:
    """Ways to divide an axis: into how many pieces, the largest of them, and how many patches reach into each."""
    cells = -(-size // step)
    tried = {*range(1, 17), *(round(2 ** (exponent / 2)) for exponent in range(8, 24))}
    divided = [_parts(size, step, pieces) for pieces in sorted(tried) if pieces <= cells]
    return [(len(parts), max(part.stop - part.start for part in parts), _touched(parts, spans)) for parts in divided]


def _touched(parts: Sequence[slice], spans: Sequence[tuple[int, int]]) -> Counts:
    """Into how many patches each part of an axis reaches."""
    starts, stops = np.sort(np.asarray(spans), axis=0).T
    lows, highs = np.array([(part.start, part.stop) for part in parts]).T
    return np.asarray(np.searchsorted(starts, highs) - np.searchsorted(stops, lows, side="right"))


def ends_of(places: Sequence[Place]) -> Counts:
    """Start and stop of patches along Z, Y and X, shape (patches, 3, 2)."""
    numbers = (end for place in places for part in place for end in (part.start, part.stop))
    return np.fromiter(numbers, np.int64, 6 * len(places)).reshape(-1, 3, 2)


def inside(ends: Counts, box: Place) -> tuple[list[int], list[Place]]:
    """The patches that reach into a box: their numbers, and where they lie, seen from its corner.

    Args:
        ends: of all patches, see :func:`ends_of`.
        box: part of the volume.
    """
    corner, opposite = np.array([(part.start, part.stop) for part in box]).T
    chosen = np.flatnonzero(((ends[..., 0] < opposite) & (ends[..., 1] > corner)).all(axis=1))
    seen = (ends[chosen] - corner[:, None]).tolist()
    return chosen.tolist(), [(slice(*z), slice(*y), slice(*x)) for z, y, x in seen]
