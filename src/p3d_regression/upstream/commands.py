"""Upstream's two commands, run in this process, and what their options make of a config."""

import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.upstream import introspection

#: Console script -> the upstream module whose ``main()`` it calls.
COMMANDS = {"train3dunet": "pytorch3dunet.train", "predict3dunet": "pytorch3dunet.predict"}


def overridden(path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a config and override it, as upstream's commands do with their further options.

    Raises:
        ConfigError: upstream refuses an override, or what results.
    """
    load_config = inspect.unwrap(import_module("pytorch3dunet.unet3d.config").load_config)
    before, sys.argv = sys.argv, ["p3d-regression check", "--config", path, *overrides]
    try:
        with introspection.quiet():
            loaded = load_config()
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"upstream refuses {' '.join(overrides)}: {error}") from error
    except SystemExit as error:
        raise ConfigError(f"upstream does not take the options {' '.join(overrides)}") from error
    finally:
        sys.argv = before
    config: dict[str, Any] = loaded[0] if isinstance(loaded, tuple) else loaded
    return config
