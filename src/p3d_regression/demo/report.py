"""The result: a table for the terminal and a picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from p3d_regression.demo.data import Hemisphere, Volume

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure
    from rich.table import Table


@dataclass(frozen=True)
class Scores:
    """How well a prediction agrees with the labels, over all voxels; distances in mm.

    ``r`` is Pearson's correlation; None for a constant prediction, where it is not defined.
    """

    low: float
    high: float
    mse: float
    mae: float
    r2: float
    r: float | None

    @classmethod
    def of(cls, prediction: Volume, label: Volume) -> "Scores":
        """Compare two volumes of the same shape.

        >>> Scores.of(np.array([1.0, 1.0]), np.array([0.0, 4.0]))
        Scores(low=1.0, high=1.0, mse=5.0, mae=2.0, r2=-0.25, r=None)
        """
        predicted, true = prediction.astype(np.float64), label.astype(np.float64)
        error = predicted - true
        mse = float(np.mean(error**2))
        varies = np.ptp(predicted) > 0
        return cls(
            low=float(predicted.min()),
            high=float(predicted.max()),
            mse=mse,
            mae=float(np.mean(np.abs(error))),
            r2=1 - mse / float(true.var()),
            r=float(np.corrcoef(predicted.ravel(), true.ravel())[0, 1]) if varies else None,
        )


def read_prediction(path: Path) -> Volume:
    """Read what ``predict3dunet`` wrote for a model with one channel; shape (D, H, W)."""
    with h5py.File(path) as file:
        volume: Volume = file["predictions"][0]
        return volume


def table(predictions: dict[str, Volume], label: Volume) -> "Table":
    """One row for the labels, one for the best constant, one for each prediction."""
    from rich.table import Table

    result = Table(title="Signed distance to white matter in mm, test hemisphere")
    result.add_column("", no_wrap=True)
    for column in ("min", "max", "MSE", "MAE", "R2", "Pearson r"):
        result.add_column(column, justify="right")
    result.add_row("labels", f"{label.min():.2f}", f"{label.max():.2f}", end_section=True)
    for name, prediction in {"best constant": np.full_like(label, label.mean()), **predictions}.items():
        scores = Scores.of(prediction, label)
        numbers = [scores.low, scores.high, scores.mse, scores.mae, scores.r2]
        correlation = "-" if scores.r is None else f"{scores.r:.3f}"
        # + 0.0 turns the -0.0 of a rounded tiny negative number into 0.0
        result.add_row(name, *(f"{round(number, 2) + 0.0:.2f}" for number in numbers), correlation)
    return result


def draw(predictions: dict[str, Volume], test: Hemisphere, path: Path) -> None:
    """Write a PNG: a row per prediction with input, truth, prediction, error and predicted against true."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.1 * len(predictions) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(len(predictions), 1, squeeze=False)[:, 0]
    for row, (name, prediction) in zip(rows, predictions.items(), strict=True):
        _draw_row(row, name, prediction, test)
    figure.savefig(path, dpi=110)


def _draw_row(row: "SubFigure", name: str, prediction: Volume, test: Hemisphere) -> None:
    # one scale for all rows, so that they can be compared by eye
    low, high = float(test.label.min()), float(test.label.max())
    middle = test.label.shape[0] // 2
    error = prediction - test.label
    images: list[tuple[str, Volume, dict[str, Any]]] = [
        ("input: T1", test.raw, {"cmap": "gray"}),
        ("truth", test.label, {"cmap": "viridis", "vmin": low, "vmax": high}),
        ("prediction", prediction, {"cmap": "viridis", "vmin": low, "vmax": high}),
        ("prediction - truth", error, {"cmap": "RdBu_r", "vmin": -high / 2, "vmax": high / 2}),
    ]
    row.suptitle(name, fontweight="bold")
    axes = row.subplots(1, 5)
    for axis, (title, volume, style) in zip(axes, images, strict=False):
        # a sagittal slice: back to front, bottom to top
        image = axis.imshow(volume[middle].T, origin="lower", **style)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
        if volume is not test.raw:
            row.colorbar(image, ax=axis, shrink=0.8, label="mm", extend="both" if volume is error else "neither")
    _draw_against_truth(axes[4], prediction, test.label)


def _draw_against_truth(axis: Any, prediction: Volume, label: Volume) -> None:
    ends = [float(label.min()), float(label.max())]
    axis.hexbin(label.ravel(), prediction.ravel(), gridsize=50, bins="log", mincnt=1, cmap="Blues")
    axis.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    axis.set_xlabel("true distance (mm)", fontsize=9)
    axis.set_ylabel("predicted distance (mm)", fontsize=9)
