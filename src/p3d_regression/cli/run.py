"""``p3d-regression run``: pytorch-3dunet's commands with the plugin, where torch does not load it."""

import signal
import sys
from importlib import import_module

import click

from p3d_regression.errors import ConfigError, UnsupportedUpstreamError
from p3d_regression.patches import activation
from p3d_regression.upstream.commands import COMMANDS


@click.command(
    short_help="Run train3dunet or predict3dunet with the plugin.",
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["-h", "--help"],
    },
)
@click.argument("command", type=click.Choice(list(COMMANDS)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(command: str, arguments: tuple[str, ...]) -> None:
    """Run train3dunet or predict3dunet with the plugin, also where torch does not load it.

    torch does not load it with TORCH_DEVICE_BACKEND_AUTOLOAD=0, for example. ARGUMENTS are those of the command:

        p3d-regression run train3dunet --config train.yml
    """
    if activation.is_disabled():
        raise click.UsageError(f"P3D_REGRESSION_DISABLE is set: unset it, or run {command} directly.")
    try:
        activation.activate()
        # as the command does by itself
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # pytorch-3dunet parses sys.argv, and its usage message takes the name of the program from there
        sys.argv = [command, *arguments]
        import_module(COMMANDS[command]).main()
    except (ConfigError, UnsupportedUpstreamError) as error:
        raise click.ClickException(str(error)) from error
