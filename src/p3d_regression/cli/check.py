"""``p3d-regression check``."""

import io
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from p3d_regression.checks.reading import Progress


@click.command(
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
