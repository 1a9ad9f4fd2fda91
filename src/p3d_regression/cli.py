"""The command ``p3d-regression``: parse, call, print."""

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p3d_regression import __version__, upstream
from p3d_regression.errors import ConfigError, UnsupportedUpstreamError
from p3d_regression.upstream import commands

if TYPE_CHECKING:
    from rich.console import Console

    from p3d_regression.checks.reading import Progress
    from p3d_regression.doctor import Diagnosis
    from p3d_regression.export.run import Format


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p3d-regression")
def main() -> None:
    """Regression for pytorch-3dunet.

    Where this package is installed, upstream's own train3dunet and predict3dunet understand
    `model.final_activation`: none, softplus and others. These commands are the tools around that.
    """


@main.command(short_help="Is the plugin active here, and if not, why?")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Say whether the plugin becomes active in this environment, and if not, why.

    Exit status: 0 active, 1 not.
    """
    from p3d_regression.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        click.echo(json.dumps(diagnosis.as_dict(), indent=2))
    else:
        _print_diagnosis(diagnosis)
    sys.exit(0 if diagnosis.active else 1)


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    from rich.console import Console
    from rich.text import Text

    def line(name: str, value: str, colour: str = "", more: str = "") -> None:
        # Text, not markup: a path may hold square brackets. Unwrapped: half a path is no path.
        console.print(Text.assemble(f"{name:<16}", (value, colour), f"  {more}" if more else ""), soft_wrap=True)

    console = Console(highlight=False)
    for name, version in diagnosis.versions.items():
        line(name, version or "not found", "" if version else "red")
    for name, command in diagnosis.commands.items():
        other = command["path"] and not command["this_environment"]
        warning = "of another environment, where the plugin may be absent" if other else ""
        line(name, command["path"] or "not on PATH", "" if command["this_environment"] else "yellow", warning)
    for patch in diagnosis.patches:
        good = patch["state"] in ("applied", "not needed")
        line(patch["state"], patch["target"], "green" if good else "red", f"({patch['detail']})")
    for plugin in diagnosis.plugins:
        good = plugin["state"] == "loaded"
        line(
            f"plugin {plugin['state']}", plugin["distribution"], "green" if good else "yellow", f"({plugin['detail']})"
        )
    for name, claims in diagnosis.contested.items():
        line("contested", name, "red", f"(claimed by {' and '.join(claims)})")
    if diagnosis.active:
        line("active", "train3dunet and predict3dunet understand model.final_activation", "green")
    else:
        line("not active", str(diagnosis.reason), "red")


@main.command(short_help="Every final activation that a config may name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def activations(as_json: bool) -> None:
    """List the values of model.final_activation: arguments, output range, origin, use.

    A range is that of the value in the first column. Softmax and others that act over the channels need a model
    with two or more.
    """
    from p3d_regression.activations import table

    _show(table.rows(), as_json, "final_activation:", "range", lambda row: row["range_text"])


@main.command(short_help="Every loss that a config may name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def losses(as_json: bool) -> None:
    """List the losses: arguments, the outputs they are for, origin, use.

    Upstream's own names keep upstream's behaviour, unless an option of these is used beside them.
    """
    from p3d_regression.losses import table

    _show(table.rows(), as_json, "loss:", "output", lambda row: row["outputs"])


@main.command(short_help="Every metric that a config may name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def metrics(as_json: bool) -> None:
    """List the metrics: arguments, which direction is better, origin, use.

    Upstream's own names keep upstream's behaviour, unless an option of these is used beside them.
    """
    from p3d_regression.metrics import table

    better = {True: "higher", False: "lower", None: "say it"}
    _show(table.rows(), as_json, "eval_metric:", "better", lambda row: better[row["higher_is_better"]])


def _show(
    rows: list[dict[str, Any]], as_json: bool, key: str, what: str, property_of: Callable[[dict[str, Any]], str]
) -> None:
    """Print what a config may name: as JSON, or as a table with one property in a column of its own."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table(key, what, [_cells(row, property_of(row)) for row in rows])


def _cells(row: dict[str, Any], what: str) -> tuple[str, str, str, str, str]:
    """A row of a table: what a config says, arguments, a property, origin, use."""
    from p3d_regression.components.table import arguments_in_words
    from p3d_regression.components.text import as_yaml

    example = row["example"]
    alone = isinstance(example, dict) and len(example) == 1
    value = as_yaml(row["name"] if alone else example) + (
        f" (or {', '.join(row['aliases'])})" if row["aliases"] else ""
    )
    return value, arguments_in_words(row), what, row["distribution"] or row["origin"], row["use"]


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
    # half a line to paste is no line: on a narrow terminal the columns stand below each other
    console.print(table if console.width >= 160 else "\n".join(stacked))


@main.command(
    short_help="Run train3dunet or predict3dunet with the plugin.",
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["-h", "--help"],
    },
)
@click.argument("command", type=click.Choice(list(commands.COMMANDS)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(command: str, arguments: tuple[str, ...]) -> None:
    """Run upstream's COMMAND with the plugin active, also where torch does not load it.

    As with TORCH_DEVICE_BACKEND_AUTOLOAD=0. ARGUMENTS are upstream's own:

        p3d-regression run train3dunet --config train.yml
    """
    if upstream.is_disabled():
        raise click.UsageError(f"P3D_REGRESSION_DISABLE is set: unset it, or call {command} itself.")
    try:
        commands.run(command, arguments)
    except (ConfigError, UnsupportedUpstreamError) as error:
        raise click.ClickException(str(error)) from error


@main.command(
    short_help="Find the traps in a config before training.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG... [UPSTREAM'S OPTIONS]")
@click.option("--config", "more_configs", multiple=True, help="A config, as upstream's commands are given it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.option("--no-data", is_flag=True, help="Look at the configs alone: no file that they name is opened.")
@click.option(
    "--select",
    multiple=True,
    metavar="CODES",
    help="Only these rules: codes, their beginnings, or names, with commas between them.",
)
@click.option("--ignore", multiple=True, metavar="CODES", help="Not these.")
def check(
    arguments: tuple[str, ...],
    more_configs: tuple[str, ...],
    as_json: bool,
    no_data: bool,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
) -> None:
    """Check training and prediction configs, and the data that they name.

    Reads the labels that the loss will see, computes what loss and score can reach on them at best, and says what is in
    the way. Overlapping patches show a voxel several times, and it counts as often.
    Behind the configs stand upstream's own options, such as --loaders.test.file_paths, which override them.

    Exit status: 0 no errors, 1 errors found, 2 something could not be checked.
    """
    options = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    configs, overrides = [*more_configs, *arguments[:options]], arguments[options:]
    if not configs:
        raise click.UsageError("name the configs to check first, then upstream's options.")
    try:
        sys.exit(_check(configs, overrides, _codes(select), _codes(ignore), as_json=as_json, with_data=not no_data))
    except KeyboardInterrupt:
        click.echo("interrupted before anything was known", err=True)
        sys.exit(2)


def _check(
    configs: list[str],
    overrides: tuple[str, ...],
    select: list[str],
    ignore: list[str],
    *,
    as_json: bool,
    with_data: bool,
) -> int:
    from p3d_regression.checks import registry, report, run

    try:
        rules = registry.select(select, ignore)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    reports: list[run.Report] = []
    with _progress_bar() as progress:
        for config in configs:
            if any(found.interrupted for found in reports):
                reports.append(run.Report(config, failures=["interrupted before it"]))
            else:
                reports.append(run.check_file(config, overrides, rules, with_data=with_data, progress=progress))
    if as_json:
        click.echo(json.dumps([report.as_dict(found) for found in reports], indent=2, allow_nan=False))
    else:
        report.show(reports, _console())
    return max(found.exit_status for found in reports)


def _codes(options: tuple[str, ...]) -> list[str]:
    return [code.strip() for option in options for code in option.split(",") if code.strip()]


def _console() -> "Console":
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        # a path may hold what a plain terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(highlight=False, markup=False)


@contextmanager
def _progress_bar() -> "Iterator[Progress]":
    """For whoever watches; a pipe and a log get none."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def insist() -> None:
        # Python drops what is raised while it tidies up: then the next piece is the last
        if interrupted:
            raise KeyboardInterrupt

    class Shown:
        def start(self, what: str, voxels: int) -> None:
            insist()
            # one line, also for hundreds of files
            for task in bar.task_ids:
                bar.remove_task(task)
            self.task = bar.add_task(what, total=voxels or None)

        def advance(self, voxels: int) -> None:
            insist()
            bar.advance(self.task, voxels)

    console = Console(stderr=True)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
            yield Shown()
    finally:
        signal.signal(signal.SIGINT, before)


@main.command(short_help="Explain a rule of `check`; without a code, list them.")
@click.argument("code", required=False)
def rule(code: str | None) -> None:
    """Say what a rule finds, why it matters, and how it is mended."""
    from p3d_regression.checks import docs, registry

    if code is None:
        for known in registry.rules():
            click.echo(f"{known.code}  {known.severity:<8}  {known.name}")
        return
    try:
        found = registry.select([code], [])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo("\n\n".join(docs.explain(known) for known in found))


@main.command(short_help="Write a checkpoint for people without the plugin.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="Training or prediction config that goes with it.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["plain", "onnx", "pt2"]),
    help="plain: a checkpoint for pytorch-3dunet alone. By default what the name OUT ends in, else plain.",
)
def export(checkpoint: Path, out: Path, config: Path | None, format_: "Format | None") -> None:
    """Write CHECKPOINT as OUT, a new file that gives the same predictions where p3d-regression is not installed.

    plain: the target scaling becomes a part of the last convolution; printed is the model section of a config for plain
    pytorch-3dunet. For none, sigmoid and softmax; other final activations need onnx or pt2.
    Before anything is written, both models are run and compared.
    """
    from p3d_regression.errors import ExportError
    from p3d_regression.export.run import export as write

    by_name: dict[str, Format] = {".onnx": "onnx", ".pt2": "pt2"}
    chosen = format_ or by_name.get(out.suffix.lower(), "plain")
    try:
        exported = write(checkpoint, out, chosen, config)
    except (ExportError, ConfigError, UnsupportedUpstreamError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: the model of {exported.config}, with the weights of {checkpoint}.", err=True)
    click.echo(f"On random patches both differ by {exported.difference:.1e} of the span of the output.", err=True)
    if exported.section is not None:
        from p3d_regression.components.text import as_yaml

        click.echo("For predictions and pre_trained, not for resume. The section model for its config:", err=True)
        click.echo("model:\n" + "\n".join(f"  {key}: {as_yaml(value)}" for key, value in exported.section.items()))


@main.command(short_help="Train and predict on a brain MRI (two minutes).")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("p3d-demo"),
    show_default=True,
    help="Directory for data, configs, checkpoints, predictions and the picture.",
)
@click.option("--iterations", type=click.IntRange(min=1), default=120, show_default=True, help="Training iterations.")
@click.option("--compare", is_flag=True, help="Also train with upstream's own sigmoid and softmax.")
def demo(out: Path, iterations: int, compare: bool) -> None:
    """Regress the distance to white matter from a brain MRI, with upstream's own commands.

    Takes about two minutes on two CPU cores, three times as long with --compare. Nothing is downloaded.
    """
    from p3d_regression.demo.errors import DemoError
    from p3d_regression.demo.run import run_demo

    try:
        run_demo(out, iterations=iterations, compare=compare)
    except (DemoError, OSError) as error:
        raise click.ClickException(str(error)) from error
