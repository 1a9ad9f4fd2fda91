"""``p3d-regression check``."""

import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p3d_regression.cli.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from p3d_regression.checks.rule import Rule
    from p3d_regression.checks.run import Report


@click.command(
    short_help="Find errors in a config and its data before training.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG... [OVERRIDES]")
@click.option("--config", "more_configs", multiple=True, help="A training or prediction config.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.option("--no-data", is_flag=True, help="Check the configs only, and open no file that they name.")
@click.option(
    "--select",
    multiple=True,
    metavar="CODES",
    help="Use only these rules: codes, the first characters of codes, or names, separated by commas.",
)
@click.option("--ignore", multiple=True, metavar="CODES", help="Do not use these rules.")
@click.option("--fix", is_flag=True, help="Write the fixes into the configs, and report the remaining findings.")
@click.option("--diff", is_flag=True, help="Print what --fix would change, and change nothing.")
def check(
    arguments: tuple[str, ...],
    more_configs: tuple[str, ...],
    as_json: bool,
    no_data: bool,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fix: bool,
    diff: bool,
) -> None:
    """Check training and prediction configs, and the data that they name.

    \b
    p3d-regression check train.yml predict.yml
    p3d-regression check train.yml --diff

    Reads the labels, computes the best loss and score that the model can reach on them, and reports what prevents a
    better one. A voxel counts once for each patch that contains it. A config named - is read from standard input.

    After the configs follow OVERRIDES, the options of pytorch-3dunet that change a config, such as
    --loaders.test.file_paths.

    --fix and --diff leave fixes to you that need a decision, or a value that only you know.

    Exit status: 0 no errors, 1 errors found, 2 something could not be checked. With --fix or --diff: after the fixes.
    """
    options = next((i for i, argument in enumerate(arguments) if argument[:1] == "-" != argument), len(arguments))
    configs, overrides = [*more_configs, *arguments[:options]], arguments[options:]
    if not configs:
        raise click.UsageError("name the configs first, then the options of pytorch-3dunet that override them.")
    if fix or diff:
        _refuse_to_fix(configs, overrides, both=fix and diff, as_json=diff and as_json)
    try:
        if fix or diff:
            sys.exit(_fix(configs, _codes(select), _codes(ignore), as_json=as_json, with_data=not no_data, writes=fix))
        sys.exit(_check(configs, overrides, _codes(select), _codes(ignore), as_json=as_json, with_data=not no_data))
    except KeyboardInterrupt:
        click.echo("interrupted before any result", err=True)
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
    from p3d_regression.checks import run

    rules = _rules(select, ignore)
    reports: list[run.Report] = []
    with progress_bar() as progress, _files(configs) as files:
        for config, file in zip(configs, files, strict=True):
            if any(found.interrupted for found in reports):
                reports.append(run.Report(config, failures=["interrupted before this config"]))
            else:
                reports.append(run.check_file(file, overrides, rules, with_data=with_data, progress=progress))
                reports[-1].config = "<stdin>" if config == "-" and not as_json else config
    return _print(reports, as_json=as_json)


def _fix(
    configs: list[str], select: list[str], ignore: list[str], *, as_json: bool, with_data: bool, writes: bool
) -> int:
    from p3d_regression.checks import fixing
    from p3d_regression.checks.run import Report

    rules = _rules(select, ignore)
    reports: list[Report] = []
    with progress_bar() as progress:
        for config in configs:
            if any(found.interrupted for found in reports):
                reports.append(Report(config, failures=["interrupted before this config"]))
                continue
            report, diff = fixing.fix_file(config, rules, with_data=with_data, progress=progress, writes=writes)
            reports.append(report)
            if not writes:
                click.echo(diff, nl=False)
    return _print(reports, as_json=as_json, to_stderr=not writes)


def _refuse_to_fix(configs: list[str], overrides: tuple[str, ...], *, both: bool, as_json: bool) -> None:
    if both:
        raise click.UsageError("--diff and --fix cannot be combined: --diff changes nothing.")
    if as_json:
        raise click.UsageError("--diff and --json cannot be combined: --diff prints a diff.")
    if overrides:
        raise click.UsageError(f"--fix and --diff cannot change the options {' '.join(overrides)}: omit these options.")
    if {"-", "/dev/stdin"} & set(configs):
        raise click.UsageError("a config from standard input cannot be fixed: name a file.")


def _rules(select: list[str], ignore: list[str]) -> "list[Rule]":
    from p3d_regression.checks import registry

    try:
        return registry.select(select, ignore)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _print(reports: "list[Report]", *, as_json: bool, to_stderr: bool = False) -> int:
    from p3d_regression.checks import report

    if as_json:
        click.echo(json.dumps([report.as_dict(found) for found in reports], indent=2, allow_nan=False))
    else:
        report.show(reports, _console(to_stderr=to_stderr))
    return max(found.exit_status for found in reports)


@contextmanager
def _files(configs: list[str]) -> Iterator[list[str]]:
    """A file for each config: a pipe can be read once, but pytorch-3dunet and the check read a config several times."""
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for index, config in enumerate(configs):
            if config == "-" or Path(config).is_fifo():
                copy = Path(directory) / f"{index}.yml"
                copy.write_bytes(sys.stdin.buffer.read() if config == "-" else Path(config).read_bytes())
                config = str(copy)
            files.append(config)
        yield files


def _codes(options: tuple[str, ...]) -> list[str]:
    return [code.strip() for option in options for code in option.split(",") if code.strip()]


def _console(*, to_stderr: bool = False) -> "Console":
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        # a path may contain characters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(highlight=False, markup=False, stderr=to_stderr)
