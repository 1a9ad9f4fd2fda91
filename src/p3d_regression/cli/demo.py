"""``p3d-regression demo``."""

import os
import sys
import webbrowser
from pathlib import Path

import click

from p3d_regression.demo.jobs import JOBS


@click.command(short_help="Train and predict on a brain MRI, in two minutes.")
@click.option(
    "--job",
    type=click.Choice(list(JOBS)),
    default="distance",
    show_default=True,
    help="What is predicted: a distance map, an image without its noise, counts, or a mean with its uncertainty.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for data, configs, checkpoints, predictions and the picture; by default p3d-demo, for another job "
    "p3d-demo-JOB.",
)
@click.option("--iterations", type=click.IntRange(min=1), default=360, show_default=True, help="Training iterations.")
@click.option("--compare", is_flag=True, help="Also train with the sigmoid and the softmax of pytorch-3dunet.")
def demo(job: str, out: Path | None, iterations: int, compare: bool) -> None:
    """Train on a brain MRI with train3dunet, predict with predict3dunet, and score the prediction.

    Takes about two minutes on two idle CPU cores, three times as long with --compare. Nothing is downloaded. On a
    desktop the report is opened at the end.
    """
    from p3d_regression.demo.run import run_demo
    from p3d_regression.errors import DemoError

    if compare and job != "distance":
        raise click.UsageError("--compare is for --job distance; leave one of the two out.")
    out = out or Path("p3d-demo" if job == "distance" else f"p3d-demo-{job}")
    try:
        report = run_demo(out, job=job, iterations=iterations, compare=compare)
    except (DemoError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if _has_desktop():
        webbrowser.open(report.as_uri())


def _has_desktop() -> bool:
    """Whether somebody sees a browser; elsewhere webbrowser may start one in the terminal."""
    if not sys.stdout.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
