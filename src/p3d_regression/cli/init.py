"""``p3d-regression init``: configs from volumes."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from p3d_regression.planning.run import Written

_KINDS = ("auto", "denoise", "counts", "distance", "mask+distance", "mean+variance", "staining", "vectors")


class _Memory(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, such as 8GB."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        found = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?)i?B?\s*", str(value), re.IGNORECASE)
        if not found or float(found[1]) <= 0:
            self.fail(f"{value} is not a size, such as 8GB.", param, ctx)
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


@click.command(short_help="Write a training and a prediction config for your volumes.")
@click.argument("paths", nargs=-1, required=True, metavar="DIR | FILES...")
@click.option(
    "--task", type=click.Choice(_KINDS), default="auto", help="What the labels are; by default from their values."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Where to write.")
@click.option("--memory", type=_Memory(), help="Memory for a training step, such as 8GB.")
@click.option("--iterations", type=click.IntRange(1), help="Of the training; by default as many as fit the volumes.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def init(paths: tuple[str, ...], task: str, out: Path, memory: int | None, iterations: int | None, yes: bool) -> None:
    """Look at raw volumes and labels, and write train.yml and predict.yml with a reason on each line.

    \b
    p3d-regression init DIR             folders such as raw and label, or files with both
    p3d-regression init raw label       a folder of raw volumes and one of labels
    p3d-regression init a.h5 b.h5       files with the datasets raw and label
    p3d-regression init predict CHECKPOINT FILES...   a prediction config alone

    Reads HDF5, Zarr, TIFF, NIfTI, NPY and MRC. Labels are paired with raw volumes by file name. What pytorch-3dunet
    cannot read as it is, is written to hdf5/. Nothing is overwritten.
    """
    from p3d_regression.cli.progress import progress_bar
    from p3d_regression.errors import ConfigError, VolumesError

    try:
        if paths[0] == "predict" and len(paths) > 1 and not Path(paths[0]).exists():
            with progress_bar() as progress:
                _predict(paths[1], paths[2:], out)
            return
        from p3d_regression.conversion.pairing import find
        from p3d_regression.planning import run

        found = find([Path(path) for path in paths])
        if found.notes and not yes and _is_terminal():
            click.confirm(f"{'; '.join(found.notes)}. Is that right?", abort=True, default=True)
        with progress_bar() as progress:
            written = run.init(
                found, out, progress, task=None if task == "auto" else task, memory=memory, iterations=iterations
            )
        _say(written)
    except (VolumesError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


def _is_terminal() -> bool:
    import sys

    return sys.stdin.isatty() and sys.stderr.isatty()


def _predict(checkpoint: str, files: tuple[str, ...], out: Path) -> None:
    from p3d_regression.planning.from_checkpoint import init_prediction

    written, notes = init_prediction(Path(checkpoint), files, out)
    click.echo(f"{written}: {', '.join(notes)}")
    click.echo(f"Next: predict3dunet --config {written}")


def _say(written: "Written") -> None:
    found = written.found
    shapes = sorted({volume.shape for volume in found.volumes})
    text = ", ".join(map(str, shapes[:3])) + (", ..." if len(shapes) > 3 else "")
    click.echo(f"{len(found.volumes)} volumes of {text} (Z, Y, X)")
    for kind, channels in (("raw", found.raw), ("label", found.label)):
        for index, values in enumerate(channels):
            m = values.moments
            name = f"{kind} {index}" if len(channels) > 1 else kind
            nan = f", {values.share_of_nan:.1%} NaN" if m.nan else ""
            click.echo(f"  {name}: {m.low:.5g} to {m.high:.5g}, mean {m.mean:.5g}, std {m.std:.5g}{nan}")
    if written.task.kind:
        click.echo(f"  task: {written.task.kind} ({written.task.why})")
    if written.volumes:
        click.echo(f"written: {len(written.volumes)} HDF5 files in {written.volumes[0].parent.parent}")
    click.echo(f"written: {', '.join(map(str, written.configs))}")
    for note in written.notes:
        click.echo(f"note: {note}")
    for finding in written.findings:
        click.echo(f"{finding.rule.code} {finding.rule.severity} {finding.found.key}: {finding.found.message}")
    for failure in written.failures:
        click.echo(f"not checked: {failure}")
    if not written.findings and not written.failures:
        click.echo("p3d-regression check finds nothing against it.")
    train, predict = written.configs
    if any(finding.is_error for finding in written.findings):
        click.echo(f"Next: correct this, then p3d-regression check {train}")
        return
    click.echo(
        f"The training takes {written.iterations} iterations; on a terminal it shows the time left. To try a shorter "
        "one, run init again with --iterations 200 and another --out."
    )
    click.echo("Next:")
    for command in (f"train3dunet --config {train}", f"predict3dunet --config {predict}"):
        click.echo(f"  {command}")
    click.echo(f"  p3d-regression evaluate {predict}")
