"""The pictures of a report, as data that a page holds."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from p3d_regression.evaluation.calibration import coverage, normal_widths
from p3d_regression.evaluation.pairs import Pair, Source
from p3d_regression.evaluation.statistics import Array, Channel
from p3d_regression.evaluation.volume import Result
from p3d_regression.volumes.opening import opened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Voxels along an axis of a picture, at most.
_PIXELS = 320

#: Readable on a light and on a dark page.
_GREY = "#808890"

_STYLE: Any = {
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "axes.titlecolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "font.size": 9,
}


@dataclass(frozen=True)
class Picture:
    """An image that is part of a page, and what it shows in words."""

    data: str
    alt: str


@contextmanager
def _figure(size: tuple[float, float]) -> "Iterator[Figure]":
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _saved(figure: "Figure", alt: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, transparent=True)
    return Picture(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", alt)


def _picture(size: tuple[float, float], alt: str, draw: "Callable[[Figure], None]") -> Picture:
    with _figure(size) as figure:
        draw(figure)
        return _saved(figure, alt)


@dataclass(frozen=True)
class _Scale:
    """The colours of a channel, the same in all pictures of a volume."""

    low: float
    high: float
    error: float

    @property
    def values(self) -> dict[str, Any]:
        if self.low < 0 < self.high:
            from matplotlib.colors import TwoSlopeNorm

            return {"cmap": "PuOr_r", "norm": TwoSlopeNorm(0, self.low, self.high)}
        return {"cmap": "viridis", "vmin": self.low, "vmax": self.high}


def _scale(channel: Channel) -> _Scale:
    low, high = channel.errors.at(0.01, 0.99)
    most = max(abs(low), abs(high)) or 1.0
    return _Scale(channel.low, channel.high, most)


def _cut(source: Source, channel: int, axis: int, index: int) -> Array:
    with opened(source.path) as file:
        place: list[Any] = [slice(None)] * 3
        place[axis] = index
        if len(source.shape) == 4:
            place = [min(channel, source.channels - 1), *place]
        found = np.asarray(file[source.key][tuple(place)], np.float64)
    steps = [max(1, -(-n // _PIXELS)) for n in found.shape]
    return found[:: steps[0], :: steps[1]]


def _cuts(pair: Pair, channel: int, axis: int, index: int) -> dict[str, Array]:
    """What is shown of a plane, by its title."""
    prediction = _cut(pair.prediction, pair.means[channel], axis, index)
    truth = _cut(pair.truth, channel, axis, index)
    raw = {} if pair.raw is None else {"raw": _cut(pair.raw, channel, axis, index)}
    return {**raw, "truth": truth, "prediction": prediction, "prediction - truth": prediction - truth}


def _panels(axes: "Sequence[Axes]", cuts: Mapping[str, Array], scale: _Scale, unit: str) -> list[Any]:
    images = []
    styles = {"raw": {"cmap": "gray"}, "truth": scale.values, "prediction": scale.values}
    error = {"cmap": "RdBu_r", "vmin": -scale.error, "vmax": scale.error}
    for panel, (title, values) in zip(axes, cuts.items(), strict=True):
        images.append(panel.imshow(values, **styles.get(title, error)))
        panel.set_title(title)
        panel.set_axis_off()
        figure: Any = panel.figure
        figure.colorbar(images[-1], ax=panel, shrink=0.8, label="" if title == "raw" else unit)
    return images


def slices(result: Result, channel: int, unit: str) -> Picture:
    """Three orthogonal planes through the middle: raw, truth, prediction and error."""
    pair, shape = result.pair, result.pair.truth.spatial
    # a plane across a single one would be a line
    axes = [axis for axis in range(3) if min(shape[other] for other in range(3) if other != axis) > 1] or [0]
    columns = 3 + (pair.raw is not None)
    scale = _scale(result.channels[channel])

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(len(axes), columns, squeeze=False)
        for row, axis in zip(panels, axes, strict=True):
            _panels(row, _cuts(pair, channel, axis, shape[axis] // 2), scale, unit)

    names = ", ".join(f"{'ZYX'[axis]} = {shape[axis] // 2}" for axis in axes)
    what = f"channel {channel}, " if len(result.channels) > 1 else ""
    alt = f"{pair.name}, {what}planes {names}: truth, prediction and error, the error between -{scale.error:.3g} and "
    return _picture((3.2 * columns, 2.7 * len(axes)), f"{alt}{scale.error:.3g}", draw)


def frames(result: Result, unit: str, most: int = 30) -> Iterator[Picture]:
    """Planes along Z of the first channel."""
    pair, depth = result.pair, result.pair.truth.spatial[0]
    middle = _cuts(pair, 0, 0, depth // 2)
    with _figure((3.2 * len(middle), 2.9)) as figure:
        images = _panels(figure.subplots(1, len(middle), squeeze=False)[0], middle, _scale(result.channels[0]), unit)
        figure.canvas.draw()
        # the same in all planes, which takes most of the time
        figure.set_layout_engine("none")
        for index in np.unique(np.linspace(0, depth - 1, min(most, depth)).round().astype(int)):
            for image, values in zip(images, _cuts(pair, 0, 0, int(index)).values(), strict=True):
                image.set_data(values)
            alt = f"{pair.name}, Z = {index} of {depth}, mean absolute error of the plane {result.planes[index]:.4g}"
            yield _saved(figure, alt)


def against_truth(sample: Array, channel: int, channels: int, unit: str) -> Picture:
    """Predicted against true values, with the median of each bin."""
    out, truth = sample[:, channel], sample[:, channels + channel]
    ends = [float(min(out.min(), truth.min())), float(max(out.max(), truth.max()))]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.hexbin(
            truth, out, gridsize=60, bins="log", mincnt=1, cmap="viridis", extent=(ends[0], ends[1], ends[0], ends[1])
        )
        axes.plot(ends, ends, color=_GREY, linestyle="--", label="prediction = truth")
        edges = np.quantile(truth, np.linspace(0, 1, 13))
        bins = [(low, high) for low, high in pairwise(edges) if high > low]
        middles = [np.median(out[(truth >= low) & (truth <= high)]) for low, high in bins]
        axes.plot(
            [(low + high) / 2 for low, high in bins], middles, "o-", color="#d1495b", label="median", markersize=3
        )
        axes.set(xlabel=f"truth ({unit})", ylabel=f"prediction ({unit})", xlim=ends, ylim=ends)
        axes.legend(frameon=False)

    return _picture(
        (4.4, 3.8), f"{_named('Prediction against truth', channel, channels)}, with the identity line", draw
    )


def residuals(pooled: Channel, channel: int, channels: int, unit: str) -> Picture:
    """The distribution of the errors."""
    low, high = pooled.errors.at(0.001, 0.999)
    most = max(abs(low), abs(high)) or 1.0
    edges = np.linspace(-most, most, 81)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.stairs(pooled.errors.histogram(edges) / pooled.pairs.count, edges, fill=True, color="#4c86a8")
        axes.axvline(0, color=_GREY, linestyle="--")
        axes.set(xlabel=f"prediction - truth ({unit})", ylabel="share of the voxels")

    q = pooled.errors.at(0.05, 0.5, 0.95)
    alt = f"{_named('Distribution of the error', channel, channels)}: 5 %, 50 % and 95 % of the voxels below "
    return _picture((4.4, 3.8), alt + ", ".join(f"{value:.3g}" for value in q), draw)


def reliability(pooled: Channel, channel: int, channels: int) -> Picture | None:
    """Observed against expected coverage of the predicted intervals; None where nothing predicts a deviation."""
    if pooled.calibration is None:
        return None
    levels = [round(0.05 * k, 2) for k in range(1, 20)]
    found = list(coverage(pooled.calibration, normal_widths(levels)).values())

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--")
        axes.plot(levels, found, "o-", color="#d1495b", markersize=3)
        axes.set(xlabel="expected share", ylabel="share inside the interval", xlim=(0, 1), ylim=(0, 1))

    alt = _named("Calibration: share of the truth inside the predicted intervals", channel, channels)
    return _picture((4.4, 3.8), f"{alt}; {found[17]:.0%} inside the interval of 90 %", draw)


def profile(results: Sequence[Result], unit: str) -> Picture:
    """The error along Z."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for result in results[:10]:
            axes.plot(result.planes, label=result.pair.name)
        axes.set(xlabel="Z", ylabel=f"mean absolute error ({unit})")
        axes.set_ylim(bottom=0)
        if 1 < len(results) <= 10:
            axes.legend(frameon=False)

    worst = max(results, key=lambda result: float(np.nanmax(result.planes)))
    plane = int(np.nanargmax(worst.planes))
    alt = f"Error of each plane along Z; the largest one is plane {plane} of {worst.pair.name}"
    return _picture((4.4, 3.8), alt, draw)


def curves(scalars: dict[str, tuple[Sequence[int], Sequence[float]]]) -> Picture:
    """Losses of the training."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for name, (steps, values) in scalars.items():
            axes.plot(steps, values, label=name)
        if all(value > 0 for _, values in scalars.values() for value in values):
            axes.set_yscale("log")
        axes.set(xlabel="iteration", ylabel="loss")
        axes.legend(frameon=False)

    return _picture((4.4, 3.8), f"Training: {', '.join(scalars)} against iterations", draw)


def _named(what: str, channel: int, channels: int) -> str:
    return f"{what}, channel {channel}" if channels > 1 else what
