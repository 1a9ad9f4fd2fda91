"""``p3d-regression evaluate``: scores of predicted volumes."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from p3d_regression.evaluation.pairs import Pair
    from p3d_regression.evaluation.run import Evaluation


@click.command(short_help="Score predictions against the truth.")
@click.argument("prediction", metavar="CONFIG | PREDICTION")
@click.argument("truth_file", metavar="[TRUTH]", required=False)
@click.option("--truth", "truths", multiple=True, metavar="PATH:DATASET", help="The truth of each volume of CONFIG.")
@click.option("--mask", "masks", multiple=True, metavar="PATH:DATASET", help="Voxels above 0 count.")
@click.option("--border", type=click.IntRange(0), default=0, metavar="N", help="Leave out N voxels at each face.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="A further metric of `p3d-regression metrics`."
)
@click.option("--calibrate", multiple=True, metavar="NAME", help="Fit predicted deviations on this volume of CONFIG.")
@click.option("--no-ssim", is_flag=True, help="Do not compute SSIM, which takes most of the time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write a row for each volume.")
@click.option("--maps", type=click.Path(path_type=Path), metavar="DIR", help="Write prediction minus truth as HDF5.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with pictures (HTML).")
def evaluate(
    prediction: str,
    truth_file: str | None,
    truths: tuple[str, ...],
    masks: tuple[str, ...],
    border: int,
    metrics: tuple[str, ...],
    calibrate: tuple[str, ...],
    no_ssim: bool,
    as_json: bool,
    csv_file: Path | None,
    maps: Path | None,
    report: Path | None,
) -> None:
    """Score predicted volumes, and compare them with guesses that need no network.

    `evaluate predict.yml` finds the predictions of a config. The truth is the dataset predictor.gt_internal_path or
    loaders.label_internal_path of the input files, unless --truth names another one: once for each volume, or once as
    :DATASET. `evaluate PREDICTION.h5[:DATASET] TRUTH.h5[:DATASET]` compares two files.

    Exit status: 0 better than each guess, 1 worse than one, 2 not evaluated.
    """
    from p3d_regression.errors import ConfigError, EvaluationError

    try:
        if report is not None:
            from p3d_regression.evaluation.report import check_installed, write

            check_installed()
        _check_writable(csv_file, report, maps)
        found = evaluated(
            prediction,
            truth_file,
            truths,
            masks,
            border=border,
            metrics=metrics,
            calibrate=calibrate,
            with_ssim=not no_ssim,
        )
        if calibrate:
            _store(found)
        if csv_file is not None:
            _write_csv(found, csv_file)
        if maps is not None:
            _write_maps(found, maps)
        if report is not None:
            write(found, report)
    except (ConfigError, EvaluationError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(found.plain, indent=2)) if as_json else _print(found)
    if report is not None:
        click.echo(f"Report: {report}", err=as_json)
    sys.exit(0 if found.is_better else 1)


def _check_writable(csv_file: Path | None, report: Path | None, maps: Path | None) -> None:
    """Refuse outputs that cannot be written, before the volumes are read."""
    from p3d_regression.errors import EvaluationError

    if maps is not None:
        maps.mkdir(parents=True, exist_ok=True)
    for option, path in {"--csv": csv_file, "--report": report}.items():
        if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK | os.X_OK)):
            raise EvaluationError(f"{option} {path} cannot be written; name a file in a directory that exists.")


def _asked(
    prediction: str, truth: str | None, truths: tuple[str, ...], masks: tuple[str, ...]
) -> "tuple[Mapping[str, Any] | None, list[Pair]]":
    """The config, if one is named, and what is compared."""
    from p3d_regression.checks.run import read
    from p3d_regression.errors import EvaluationError
    from p3d_regression.evaluation.pairs import pair_of_files, pairs_of_config, stale
    from p3d_regression.model.contract import adopt

    if truth is not None:
        if truths or len(masks) > 1:
            raise click.UsageError("two files are compared: leave --truth out, and give --mask once.")
        return None, [pair_of_files(prediction, truth, masks[0] if masks else None)]
    if Path(prediction).suffix.lower() not in (".yml", ".yaml"):
        raise EvaluationError(f"{prediction}: name a prediction config (.yml), or a prediction and its truth.")
    config = read(prediction)
    pairs = list(pairs_of_config(config, truths, masks))
    with suppress(Exception):
        # as predict3dunet does; without its checkpoint a prediction can be scored all the same
        adopt(config, "predict")
    for pair in pairs:
        if what := stale(config, pair):
            click.echo(
                f"Warning: {pair.prediction.path} {what}; run predict3dunet again to score this config", err=True
            )
    return config, pairs


def evaluated(
    prediction: str,
    truth: str | None,
    truths: tuple[str, ...],
    masks: tuple[str, ...],
    *,
    border: int = 0,
    metrics: tuple[str, ...] = (),
    calibrate: tuple[str, ...] = (),
    with_ssim: bool = True,
) -> "Evaluation":
    """Evaluate what is named on a command line.

    Raises:
        ConfigError: the config cannot be read.
        EvaluationError: something is missing, or does not fit.
    """
    from p3d_regression.evaluation.run import ignored_label, run
    from p3d_regression.evaluation.volume import Scope

    config, pairs = _asked(prediction, truth, truths, masks)
    scope = Scope(border, ignored_label(config or {}), with_ssim)
    with _progress_bar() as progress:
        return run(pairs, scope, progress, config=config, fitted_on=calibrate, metrics=metrics)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int], Callable[[int], None]]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:

        def start(planes: int) -> Callable[[int], None]:
            task = bar.add_task("planes", total=planes)
            return lambda count: bar.advance(task, count)

        yield start


def _print(found: "Evaluation") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from p3d_regression.evaluation.words import NAMES, number, of_channel, remarks, rows

    console = Console()
    verdict = found.verdict[0].upper() + found.verdict[1:] + "."
    console.print(Text(verdict, style="" if found.is_better else "bold red"), soft_wrap=True)
    plain = found.plain
    # fits into 80 columns
    table = Table(box=None, padding=(0, 1, 0, 0))
    # a long name goes on in the next line, a number stays whole
    table.add_column("", overflow="fold")
    for column in NAMES:
        table.add_column(column, justify="right", no_wrap=True)
    channels = range(len(found.pooled))
    for title, scores in rows(plain):
        for channel in channels:
            row = Text(f"{title} [{channel}]" if len(channels) > 1 else title)
            table.add_row(row, *(number(of_channel(scores[name], channel)) for name in NAMES))
    console.print(table)
    for guess in found.guesses:
        rmse = ", ".join(number(value) for value in guess.rmse)
        console.print(f"without a network, RMSE of the {guess.name}: {rmse}", highlight=False, soft_wrap=True)
    for line in remarks(plain):
        console.print(line, highlight=False, soft_wrap=True)


def _write_csv(found: "Evaluation", path: Path) -> None:
    """A row for each volume and channel, and for all voxels."""
    from p3d_regression.evaluation.words import NAMES, of_channel
    from p3d_regression.volumes.writing import write_whole

    plain = found.plain
    names = (*NAMES, *found.more)
    with io.StringIO(newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["volume", "channel", *names])
        for title, scores in [*((v["name"], v) for v in plain["volumes"]), ("all voxels", plain["pooled"])]:
            for channel in range(len(found.pooled)):
                rows.writerow([title, channel, *(of_channel(scores.get(name), channel) for name in names)])
        content = text.getvalue().encode()
    write_whole(path, lambda beside: beside.write_bytes(content))


def _write_maps(found: "Evaluation", directory: Path) -> None:
    """Prediction minus truth of each volume, as ``NAME_error.h5``."""
    import h5py

    from p3d_regression.evaluation.volume import slabs
    from p3d_regression.volumes.geometry import GEOMETRY
    from p3d_regression.volumes.writing import write_whole

    for result in found.results:
        pair = result.pair

        def create(path: Path, pair: "Pair" = pair) -> None:
            with h5py.File(path, "w") as file:
                shape = (len(pair.means), *pair.truth.spatial)
                out = file.create_dataset("error", shape, "float32", chunks=True, compression="gzip")
                for slab in slabs(pair):
                    planes = slice(slab.first, slab.first + slab.truth.shape[1])
                    out[:, planes] = slab.prediction[pair.means].astype("float32") - slab.truth
                geometry = {k: v for k, v in pair.prediction.attributes.items() if k in GEOMETRY}
                out.attrs.update({"axes": "czyx", "description": "prediction minus truth", **geometry})

        write_whole(directory / f"{pair.name}_error.h5", create)


def _store(found: "Evaluation") -> None:
    """Keep what makes the standard deviations fit with the predictions."""
    from p3d_regression.volumes.opening import set_attribute

    fits = [None if fitted is None else fitted.plain for fitted in found.fits]
    for result in found.results:
        prediction = result.pair.prediction
        set_attribute(prediction.path, prediction.key, "calibration", json.dumps(fits))
