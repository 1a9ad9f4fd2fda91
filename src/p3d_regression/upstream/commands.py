"""Upstream's two commands, run in this process, and what their options make of a config."""

import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from p3d_regression import upstream
from p3d_regression.errors import ConfigError
from p3d_regression.upstream import facts

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


def overridden(path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a config and override it, as upstream's commands do with their further options.

    Raises:
        ConfigError: upstream refuses an override, or what results.
    """
    load_config = inspect.unwrap(import_module("pytorch3dunet.unet3d.config").load_config)
    before, sys.argv = sys.argv, ["p3d-regression check", "--config", path, *overrides]
    try:
        with facts.quiet():
            loaded = load_config()
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"upstream refuses {' '.join(overrides)}: {error}") from error
    except SystemExit as error:
        raise ConfigError(f"upstream does not take the options {' '.join(overrides)}") from error
    finally:
        sys.argv = before
    config: dict[str, Any] = loaded[0] if isinstance(loaded, tuple) else loaded
    return config
