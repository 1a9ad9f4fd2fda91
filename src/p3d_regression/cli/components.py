"""``p3d-regression activations``, ``losses`` and ``metrics``: the names that a config can use."""

import json
from collections.abc import Callable
from typing import Any

import click


@click.command(short_help="List the final activations.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def activations(as_json: bool) -> None:
    """List the values of model.final_activation: arguments, output range, origin, use.

    The range is for the value in the first column. Softmax and others that act over the channels need a model with
    two or more output channels.
    """
    from p3d_regression.activations.registry import registry

    _show(registry().rows(), as_json, "final_activation:", "range", lambda row: row["range_text"])


@click.command(short_help="List the losses.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def losses(as_json: bool) -> None:
    """List the losses: arguments, the outputs that they are for, origin, use.

    A loss of pytorch-3dunet works as in pytorch-3dunet, unless the config adds an option that this list names for it.
    """
    from p3d_regression.losses.registry import registry

    _show(registry().rows(), as_json, "loss:", "output", lambda row: row["outputs"])


@click.command(short_help="List the metrics.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def metrics(as_json: bool) -> None:
    """List the metrics: arguments, whether a higher or a lower score is better, origin, use.

    A metric of pytorch-3dunet works as in pytorch-3dunet, unless the config adds an option that this list names for it.
    """
    from p3d_regression.metrics.registry import registry

    better = {True: "higher", False: "lower", None: "say it"}
    _show(registry().rows(), as_json, "eval_metric:", "better", lambda row: better[row["higher_is_better"]])


def _show(
    rows: list[dict[str, Any]], as_json: bool, key: str, what: str, property_of: Callable[[dict[str, Any]], str]
) -> None:
    """Print rows as JSON, or as a table with a column for one property."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table(key, what, [_cells(row, property_of(row)) for row in rows])


def _cells(row: dict[str, Any], what: str) -> tuple[str, str, str, str, str]:
    """A row of the table: the value in a config, arguments, the property, origin, use."""
    from p3d_regression.text import as_yaml

    arguments = ", ".join(
        argument["name"] if argument["required"] else f"{argument['name']}={as_yaml(argument['default'])}"
        for argument in row["arguments"]
    )
    example = row["example"]
    alone = isinstance(example, dict) and len(example) == 1
    value = as_yaml(row["name"] if alone else example) + (
        f" (or {', '.join(row['aliases'])})" if row["aliases"] else ""
    )
    return value, arguments, what, row["distribution"] or row["origin"], row["use"]


def _print_table(key: str, what: str, rows: list[tuple[str, str, str, str, str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a table in a file or a pipe is for grep
    table = Table(key, "arguments", what, "from", "use", box=box.SIMPLE_HEAD, pad_edge=False)
    stacked: list[str] = []
    for row in rows:
        table.add_row(*row)
        value, arguments, found, origin, use = row
        stacked += [value, f"    {found}, {origin}" + (f", arguments {arguments}" if arguments else ""), f"    {use}"]
    # on a narrow terminal the columns follow below each other, so that a line to paste stays whole
    console.print(table if console.width >= 160 else "\n".join(stacked))
