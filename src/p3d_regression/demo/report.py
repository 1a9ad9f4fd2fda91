"""The result: a table for the terminal and a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import yaml

from p3d_regression.demo.data import Part, Volume
from p3d_regression.demo.jobs import Job

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure
    from rich.table import Table

    from p3d_regression.evaluation.run import Evaluation


def read_prediction(path: Path) -> Volume:
    """Read what ``predict3dunet`` wrote; shape (C, D, H, W)."""
    with h5py.File(path) as file:
        volume: Volume = file["predictions"][()]
        return volume


def evaluate(config: Path) -> "Evaluation":
    """Score the prediction of a config, as ``p3d-regression evaluate`` does."""
    from p3d_regression.evaluation.pairs import pairs_of_config
    from p3d_regression.evaluation.run import ignored_label, run
    from p3d_regression.evaluation.volume import Scope

    section = yaml.safe_load(config.read_text())
    pairs = list(pairs_of_config(section, [], []))
    return run(pairs, Scope(ignored=ignored_label(section)), lambda _: lambda _: None, config=section)


def table(job: Job, evaluations: "Mapping[str, Evaluation]") -> "Table":
    """One row for each prediction, and one for each guess without a network."""
    from rich.markup import escape
    from rich.table import Table

    names = ("RMSE", "MAE", "R2", "Pearson", "slope")
    # fits into 80 columns
    result = Table(title=f"{job.quantity}, test part of the brain", box=None, padding=(0, 1, 0, 0))
    for name in ("", *names):
        result.add_column(name, justify="right" if name else "left", no_wrap=True)
    for title, found in evaluations.items():
        scores = found.plain["pooled"]
        result.add_row(escape(title), *("-" if scores[name] is None else f"{scores[name]:.2f}" for name in names))
    for guess in next(iter(evaluations.values())).guesses:
        result.add_row(guess.name, f"{guess.rmse[0]:.2f}")
    return result


def draw(job: Job, predictions: Mapping[str, Volume], test: Part, path: Path) -> None:
    """Write a PNG: a row per prediction with input, truth, prediction, error and predicted against true."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.6 * len(predictions)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(len(predictions), 1, squeeze=False)[:, 0]
    for row, (name, prediction) in zip(rows, predictions.items(), strict=True):
        _draw_row(row, name, job, prediction, test)
    figure.savefig(path, dpi=110)


def _draw_row(row: "SubFigure", name: str, job: Job, prediction: Volume, test: Part) -> None:
    inside = np.isfinite(test.label)
    # one scale for all rows, so that they can be compared by eye
    low, high = (float(value) for value in np.percentile(test.label[inside], [0.5, 99.5]))
    largest = max(-low, high)
    if job.is_signed:
        values: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    else:
        values = {"cmap": "viridis", "vmin": low, "vmax": high}
    error = np.where(inside, prediction[0] - test.label, np.nan)
    limit = (high - low) / 4
    errors: dict[str, Any] = {"cmap": "PuOr", "vmin": -limit, "vmax": limit}
    # an input in the units of the labels has their colours
    raw = {"cmap": "gray"} if job.is_signed else values
    images: list[tuple[str, Volume, dict[str, Any]]] = [
        (f"input: {job.raw}", test.raw, raw),
        (f"truth{_unit(job)}", test.label, values),
        (f"prediction{_unit(job)}", np.where(inside, prediction[0], np.nan), values),
        (f"prediction - truth{_unit(job)}", error, errors),
    ]
    if job.channels > 1:
        std = np.where(inside, np.sqrt(prediction[1]), np.nan)
        images.append(
            (f"predicted standard deviation{_unit(job)}", std, {"cmap": "magma", "vmin": 0, "vmax": limit / 2})
        )
    row.suptitle(name, fontweight="bold")
    axes = row.subplots(1, len(images) + 1)
    for axis, (title, volume, style) in zip(axes, images, strict=False):
        # a coronal slice: bottom to top, left to right
        plane = volume[len(volume) // 3]
        image = axis.imshow(plane, origin="lower", interpolation="none", **style)
        if job.is_signed and style is values:
            axis.contour(plane, levels=[0], colors="black", linewidths=0.5)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
        row.colorbar(image, ax=axis, shrink=0.7, extend="both")
    _draw_against_truth(axes[-1], prediction[0][inside], test.label[inside], (low, high), job)


def _draw_against_truth(axis: Any, predicted: Volume, true: Volume, ends: tuple[float, float], job: Job) -> None:
    # the ends of the bins too: else a few far values decide them
    axis.hexbin(true, predicted, gridsize=50, bins="log", mincnt=1, cmap="Blues", extent=(*ends, *ends))
    axis.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    axis.set_xlabel(f"true{_unit(job)}", fontsize=9)
    axis.set_ylabel(f"predicted{_unit(job)}", fontsize=9)


def _unit(job: Job) -> str:
    return f" ({job.unit})" if job.unit else ""
