"""``p3d-regression compare``: several runs on the same voxels."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p3d_regression.cli.evaluate import evaluated

if TYPE_CHECKING:
    from p3d_regression.evaluation.comparison import Difference, Run


@click.command(short_help="Compare several predictions of the same volumes.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN ...")
@click.option("--truth", "truths", multiple=True, metavar="PATH:DATASET", help="The truth, as for `evaluate`.")
@click.option("--mask", "masks", multiple=True, metavar="PATH:DATASET", help="Voxels above 0 count.")
@click.option("--border", type=click.IntRange(0), default=0, metavar="N", help="Leave out N voxels at each face.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE", help="Write the RMSE by volume (PNG).")
def compare(
    runs: tuple[str, ...],
    truths: tuple[str, ...],
    masks: tuple[str, ...],
    border: int,
    as_json: bool,
    picture: Path | None,
) -> None:
    """Compare predictions of the same volumes: one table, and the differences to the first run, volume by volume.

    A RUN is a prediction config, a prediction (PREDICTION.h5, with --truth), or a file that `evaluate --json` has
    written.

    Exit status: 0 compared, 2 not.
    """
    from p3d_regression.errors import ConfigError, EvaluationError
    from p3d_regression.evaluation import comparison

    if len(runs) < 2:
        raise click.UsageError("name two runs or more.")
    try:
        found = [_run(name, truths, masks, border) for name in runs]
        comparison.check_same(found)
        differences = [part for score in ("RMSE", "R2") for part in comparison.differences(found, score)]
        if picture is not None:
            comparison.draw(found, picture)
    except (ConfigError, EvaluationError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except ImportError as error:
        click.echo(f'Error: --picture needs {error.name}: pip install "p3d-regression[report]"', err=True)
        sys.exit(2)
    if as_json:
        plain = {run.name: run.plain for run in found}
        click.echo(json.dumps({"runs": plain, "differences": [asdict(part) for part in differences]}, indent=2))
    else:
        _print(found, differences)


def _run(name: str, truths: tuple[str, ...], masks: tuple[str, ...], border: int) -> "Run":
    from p3d_regression.evaluation.comparison import Run

    if Path(name).suffix.lower() == ".json":
        return Run.read(Path(name))
    is_config = Path(name).suffix.lower() in (".yml", ".yaml")
    if not is_config and len(truths) != 1:
        raise click.UsageError(f"{name}: name its truth once with --truth PATH:DATASET.")
    arguments = (name, None, truths, masks) if is_config else (name, truths[0], (), masks)
    return Run(name, evaluated(*arguments, border=border).plain)


def _print(runs: "list[Run]", differences: "list[Difference]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from p3d_regression.evaluation.comparison import SCORES
    from p3d_regression.evaluation.words import number, of_channel

    console = Console()
    table = Table(box=None, padding=(0, 1, 0, 0))
    # a long name goes on in the next line, a number stays whole
    table.add_column("", overflow="fold")
    for column in SCORES:
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        for channel in range(run.channels):
            values = [of_channel(run.plain["pooled"][score], channel) for score in SCORES]
            row = Text(f"{run.name} [{channel}]" if run.channels > 1 else run.name)
            table.add_row(row, *map(number, values))
    console.print(table)
    for part in differences:
        console.print(str(part), highlight=False, markup=False, soft_wrap=True)
