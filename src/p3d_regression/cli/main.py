"""The command ``p3d-regression``."""

import click

from p3d_regression._version import __version__
from p3d_regression.cli.check import check
from p3d_regression.cli.compare import compare
from p3d_regression.cli.components import activations, losses, metrics
from p3d_regression.cli.convert import convert
from p3d_regression.cli.demo import demo
from p3d_regression.cli.doctor import doctor
from p3d_regression.cli.evaluate import evaluate
from p3d_regression.cli.export import export
from p3d_regression.cli.group import Group
from p3d_regression.cli.init import init
from p3d_regression.cli.probe import probe
from p3d_regression.cli.rule import rule
from p3d_regression.cli.run import run
from p3d_regression.cli.schema import schema

#: At the end of the help.
_FIRST = """
\b
What to run first:
  p3d-regression init DIR            write configs for the volumes in DIR
  train3dunet --config train.yml
  predict3dunet --config predict.yml
  p3d-regression evaluate predict.yml
"""


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_FIRST)
@click.version_option(__version__, prog_name="p3d-regression")
def main() -> None:
    """Regression for pytorch-3dunet.

    Where this package is installed, the commands of pytorch-3dunet, train3dunet and predict3dunet, understand
    `model.final_activation`: none, softplus and others. The commands below write and check configs, convert volumes,
    list what a config can name, probe and export checkpoints, and score predictions.
    """


for command in (
    init,
    convert,
    check,
    evaluate,
    compare,
    probe,
    export,
    demo,
    doctor,
    run,
    rule,
    activations,
    losses,
    metrics,
    schema,
):
    main.add_command(command)
