"""``p3d-regression demo``."""

from pathlib import Path

import click


@click.command(short_help="Train and predict on a brain MRI, in two minutes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("p3d-demo"),
    show_default=True,
    help="Directory for data, configs, checkpoints, predictions and the picture.",
)
@click.option("--iterations", type=click.IntRange(min=1), default=120, show_default=True, help="Training iterations.")
@click.option("--compare", is_flag=True, help="Also train with the sigmoid and the softmax of pytorch-3dunet.")
def demo(out: Path, iterations: int, compare: bool) -> None:
    """Regress the distance to white matter from a brain MRI, with train3dunet and predict3dunet.

    Takes about two minutes on two CPU cores, three times as long with --compare. Nothing is downloaded.
    """
    from p3d_regression.demo.run import run_demo
    from p3d_regression.errors import DemoError

    try:
        run_demo(out, iterations=iterations, compare=compare)
    except (DemoError, OSError) as error:
        raise click.ClickException(str(error)) from error
