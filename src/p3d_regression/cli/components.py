"""``p3d-regression activations``, ``losses`` and ``metrics``: the names that a config can use."""

import json
import textwrap
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
    """Print rows as JSON, or as lines for a person, with one property of each.

    Args:
        rows: of a registry.
        as_json: whether it is JSON.
        key: of the config.
        what: the property is, in a word.
        property_of: a row.
    """
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        _print(row, key, f"{what} {property_of(row)}")


def _print(row: dict[str, Any], key: str, what: str) -> None:
    """One row: the line of a config, which stays whole, and below it what there is to say, at most 80 wide."""
    from p3d_regression.text import as_yaml

    arguments = ", ".join(
        argument["name"] if argument["required"] else f"{argument['name']}={as_yaml(argument['default'])}"
        for argument in row["arguments"]
    )
    example = row["example"]
    alone = isinstance(example, dict) and len(example) == 1 and key == "final_activation:"
    also = f"  # or {', '.join(row['aliases'])}" if row["aliases"] else ""
    click.echo(f"{key} {as_yaml(row['name'] if alone else example)}{also}")
    facts = "; ".join(filter(None, [what, f"arguments {arguments}" if arguments else "", _origin(row)]))
    for text in (row["use"], facts):
        click.echo(textwrap.fill(text, 80, initial_indent="    ", subsequent_indent="    ", break_long_words=False))


def _origin(row: dict[str, Any]) -> str:
    return f"from {row['distribution'] or row['origin']}"
