"""The result: a table for the terminal and a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import yaml

from p3d_regression.demo.data import Hemisphere, Volume

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure
    from rich.table import Table

    from p3d_regression.evaluation.run import Evaluation


def read_prediction(path: Path) -> Volume:
    """Read what ``predict3dunet`` wrote for a model with one channel; shape (D, H, W)."""
    with h5py.File(path) as file:
        volume: Volume = file["predictions"][0]
        return volume


def evaluate(config: Path) -> "Evaluation":
    """Score the prediction of a config, as ``p3d-regression evaluate`` does."""
    from p3d_regression.evaluation.pairs import pairs_of_config
    from p3d_regression.evaluation.run import run
    from p3d_regression.evaluation.volume import Scope

    section = yaml.safe_load(config.read_text())
    pairs = list(pairs_of_config(section, [], []))
    return run(pairs, Scope(), lambda _: lambda _: None, config=section)


def table(evaluations: "Mapping[str, Evaluation]") -> "Table":
    """One row for each prediction, and one for each guess without a network."""
    from rich.table import Table

    names = ("RMSE", "MAE", "R2", "Pearson", "SSIM", "slope")
    # fits into 80 columns
    result = Table(title="Signed distance to white matter in mm, test hemisphere", box=None, padding=(0, 1, 0, 0))
    for name in ("", *names):
        result.add_column(name, justify="right" if name else "left", no_wrap=True)
    for title, found in evaluations.items():
        scores = found.plain["pooled"]
        result.add_row(title, *("-" if scores[name] is None else f"{scores[name]:.2f}" for name in names))
    for guess in next(iter(evaluations.values())).guesses:
        result.add_row(guess.name, f"{guess.rmse[0]:.2f}")
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
