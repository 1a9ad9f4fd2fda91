"""Upstream's two commands, run in this process: for environments where torch does not load the plugin."""

import sys
from collections.abc import Sequence
from importlib import import_module

from p3d_regression import upstream

#: Console script -> the upstream module whose ``main()`` it calls.
COMMANDS = {"train3dunet": "pytorch3dunet.train", "predict3dunet": "pytorch3dunet.predict"}


def run(command: str, arguments: Sequence[str]) -> None:
    """Activate the plugin, then do what ``command arguments...`` does.

    Args:
        command: ``train3dunet`` or ``predict3dunet``.
        arguments: upstream's own, such as ``["--config", "train.yml"]``.

    Raises:
        ConfigError, UnsupportedUpstreamError: as the command would.
    """
    upstream.activate()
    # upstream parses sys.argv itself, and its usage message names the program from there
    sys.argv = [command, *arguments]
    import_module(COMMANDS[command]).main()
