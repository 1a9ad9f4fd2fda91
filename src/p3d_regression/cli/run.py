"""``p3d-regression run``: pytorch-3dunet's commands with the plugin, where torch does not load it."""

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
    """Run upstream's COMMAND with the plugin active, also where torch does not load it.

    As with TORCH_DEVICE_BACKEND_AUTOLOAD=0. ARGUMENTS are upstream's own:

        p3d-regression run train3dunet --config train.yml
    """
    if activation.is_disabled():
        raise click.UsageError(f"P3D_REGRESSION_DISABLE is set: unset it, or call {command} itself.")
    try:
        activation.activate()
        # pytorch-3dunet parses sys.argv itself, and its usage message names the program from there
        sys.argv = [command, *arguments]
        import_module(COMMANDS[command]).main()
    except (ConfigError, UnsupportedUpstreamError) as error:
        raise click.ClickException(str(error)) from error
