"""``p3d-regression export``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from p3d_regression.errors import ConfigError, UnsupportedUpstreamError

if TYPE_CHECKING:
    from p3d_regression.export.run import Format


@click.command(short_help="Export a checkpoint for people without the plugin.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Training or prediction config of the checkpoint.  [default: the copy in logs/ next to it]",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["plain", "onnx", "pt2"]),
    help="plain: a checkpoint for pytorch-3dunet alone.  [default: by the ending of OUT, else plain]",
)
def export(checkpoint: Path, out: Path, config: Path | None, format_: "Format | None") -> None:
    """Export CHECKPOINT to OUT, a new file that gives the same predictions without p3d-regression.

    The format plain makes the target scaling a part of the last convolution, and prints the section model for a config
    of pytorch-3dunet alone. It can express the final activations none, sigmoid and softmax; others need onnx or pt2.

    Both models are run and compared before the file is written. An existing file is never overwritten.
    """
    from p3d_regression.errors import ExportError
    from p3d_regression.export.run import export as write

    by_name: dict[str, Format] = {".onnx": "onnx", ".pt2": "pt2"}
    chosen = format_ or by_name.get(out.suffix.lower(), "plain")
    try:
        exported = write(checkpoint, out, chosen, config)
    except (ExportError, ConfigError, UnsupportedUpstreamError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: the model of {exported.config} with the weights of {checkpoint}.", err=True)
    click.echo(f"On random patches it differs by {exported.difference:.1e} of the span of the output.", err=True)
    if exported.section is not None:
        from p3d_regression.text import as_yaml

        click.echo("Use it for predictions and pre_trained, not for resume. The section model of its config:", err=True)
        click.echo("model:\n" + "\n".join(f"  {key}: {as_yaml(value)}" for key, value in exported.section.items()))
