"""A page with verdict, scores and pictures: one file that needs no network."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from p3d_regression._version import __version__
from p3d_regression.errors import EvaluationError
from p3d_regression.evaluation import pictures
from p3d_regression.evaluation.run import Evaluation
from p3d_regression.evaluation.words import NAMES, number, of_channel, remarks, rows
from p3d_regression.text import as_json
from p3d_regression.volumes.writing import write_whole

#: Volumes with pictures of their own.
_MOST_VOLUMES = 8

#: Of the page, in bytes; the planes of the slider are dropped beyond it.
_MOST_BYTES = 10 * 2**20


def check_installed() -> None:
    """Refuse before the volumes are read.

    Raises:
        EvaluationError: a package is missing.
    """
    try:
        import jinja2
        import matplotlib
    except ImportError as error:
        message = f'--report needs {error.name}; pip install "p3d-regression[report]" installs it.'
        raise EvaluationError(message) from error
    del jinja2, matplotlib


def write(found: Evaluation, path: Path) -> None:
    """Write the page; it appears under its name when it is complete.

    Args:
        found: what it shows.
        path: of it.
    """
    page = _page(found)
    write_whole(path, lambda beside: beside.write_text(page, encoding="utf-8"))


def _page(found: Evaluation) -> str:
    import jinja2

    template = resources.files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    context = _context(found)
    page = environment.from_string(template).render(context)
    if len(page) > _MOST_BYTES:
        page = environment.from_string(template).render(context | {"slider": None})
    return page


def _context(found: Evaluation) -> dict[str, Any]:
    plain, channels = found.plain, len(found.pooled)
    held = found.results[0].pair.prediction.attributes
    of_truth = found.results[0].pair.truth.attributes
    names = [part.get(key) for part in (held, of_truth) for key in ("units", "unit")]
    unit = str(next((name for name in names if name), "units of the labels"))
    worst = max(found.results, key=lambda result: result.channels[0].pairs.error(0.0, 1.0))
    return {
        "title": "Evaluation of "
        + ", ".join(result.pair.name for result in found.results[:3])
        + (f" and {len(found.results) - 3} more" if len(found.results) > 3 else ""),
        "is_better": found.is_better,
        "verdict": found.verdict[0].upper() + found.verdict[1:] + ".",
        "channels": channels,
        "names": NAMES,
        "rows": list(_rows(found, plain)),
        "units": unit,
        "lines": list(remarks(plain)),
        "volumes": [
            {
                "name": result.pair.name,
                "pictures": [pictures.slices(result, channel, unit) for channel in range(min(channels, 3))],
                "worst": [{"corner": corner, "rmse": number(mse**0.5)} for mse, corner in result.worst],
            }
            for result in found.results[:_MOST_VOLUMES]
        ],
        "slider": {
            "name": worst.pair.name,
            "frames": [vars(picture) for picture in pictures.frames(worst, unit)],
        },
        "pictures": list(_pictures(found, unit)),
        "config": yaml.safe_dump(as_json(dict(found.config)), sort_keys=False) if found.config else _kept(held),
        "versions": f"p3d-regression {__version__}. Prediction: {held.get('versions', 'versions not known')}",
    }


def _kept(held: Mapping[str, Any]) -> str:
    """The config that a prediction was made with, from its attributes."""
    with suppress(ValueError):
        return str(yaml.safe_dump(json.loads(str(held.get("config", ""))), sort_keys=False))
    return "The prediction does not say which config it was made with."


def _rows(found: Evaluation, plain: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for title, scores in rows(plain):
        for channel in range(len(found.pooled)):
            values = [number(of_channel(scores[name], channel)) for name in NAMES]
            yield {"title": title, "channel": channel, "values": values}
    for guess in found.guesses:
        for channel, rmse in enumerate(guess.rmse):
            values = [number(rmse) if name == "RMSE" else "" for name in NAMES]
            yield {"title": guess.name, "channel": channel, "values": values}


def _pictures(found: Evaluation, unit: str) -> Iterator[pictures.Picture]:
    import numpy as np

    channels = len(found.pooled)
    sample = np.concatenate([result.sample for result in found.results])
    for channel, pooled in enumerate(found.pooled[:3]):
        if len(sample):
            yield pictures.against_truth(sample, channel, channels, unit)
        yield pictures.residuals(pooled, channel, channels, unit)
        if picture := pictures.reliability(pooled, channel, channels):
            yield picture
    yield pictures.profile(found.results, unit)
    if scalars := _training(found.config or {}):
        yield pictures.curves(scalars)


def _training(config: Mapping[str, Any]) -> dict[str, tuple[Sequence[int], Sequence[float]]]:
    """The losses in the TensorBoard log next to a checkpoint; empty where there is none."""
    path = config.get("model_path")
    logs = Path(path).parent / "logs" if isinstance(path, str) else None
    if logs is None or not logs.is_dir():
        return {}
    with suppress(Exception):
        from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

        newest = max(logs.glob("**/events.out.tfevents.*"), key=lambda file: file.stat().st_mtime)
        events = event_accumulator.EventAccumulator(str(newest))
        events.Reload()
        found: dict[str, tuple[Sequence[int], Sequence[float]]] = {}
        for name in ("train_loss_avg", "val_loss_avg"):
            if name in events.Tags()["scalars"]:
                scalars = events.Scalars(name)
                found[name] = ([event.step for event in scalars], [event.value for event in scalars])
        return found
    return {}
