"""The two commands of pytorch-3dunet, and what their options make of a config."""

import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.upstream import introspection

#: Console script -> the module whose ``main()`` it calls.
COMMANDS = {"train3dunet": "pytorch3dunet.train", "predict3dunet": "pytorch3dunet.predict"}


def overridden(path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a config and override it, as pytorch-3dunet does with the options after ``--config``.

    Raises:
        ConfigError: pytorch-3dunet rejects an option, or the config that results.
    """
    load_config = inspect.unwrap(import_module("pytorch3dunet.unet3d.config").load_config)
    before, sys.argv = sys.argv, ["p3d-regression check", "--config", path, *overrides]
    try:
        with introspection.quiet():
            loaded = load_config()
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError("", f"pytorch-3dunet rejects {' '.join(overrides)}: {error}") from error
    except SystemExit as error:
        raise ConfigError("", f"pytorch-3dunet has no options {' '.join(overrides)}.") from error
    finally:
        sys.argv = before
    config: dict[str, Any] = loaded[0] if isinstance(loaded, tuple) else loaded
    return config
