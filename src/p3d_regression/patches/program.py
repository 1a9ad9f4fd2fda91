"""The programs ``train3dunet`` and ``predict3dunet``: an error of this project ends them in a few readable lines."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from p3d_regression._patching import Patch
from p3d_regression.errors import (
    CheckpointSaveError,
    ConfigError,
    EvaluationError,
    NonFiniteLossError,
    UnsupportedUpstreamError,
)
from p3d_regression.upstream.commands import COMMANDS

#: Environment variable: with any value but 0, tracebacks are shown.
SETTING = "P3D_REGRESSION_TRACEBACK"

_OURS = (ConfigError, EvaluationError, UnsupportedUpstreamError, NonFiniteLossError, CheckpointSaveError)


def patch() -> Patch | None:
    """Let the program that is running report errors of this project without a traceback.

    Returns:
        None if it is not one of pytorch-3dunet's: who calls it from Python gets the exception.
    """
    name = _program()
    if name is None or os.environ.get(SETTING, "0") not in ("", "0"):
        return None
    original = sys.excepthook
    patch = Patch("sys.excepthook", "applied", f"{name} reports errors of p3d-regression without a traceback")

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if not (patch.is_applied and isinstance(error, _OURS)):
            return original(kind, error, trace)
        print(report(f"{name}{_which()}", error), file=sys.stderr)

    sys.excepthook = excepthook
    patch.undo_actions.append(lambda: setattr(sys, "excepthook", original) if sys.excepthook is excepthook else None)
    return patch


def _which() -> str:
    """Which of several processes this is, in words."""
    from p3d_regression import group

    return f" (process {group.rank()} of {group.size()})" if group.size() > 1 else ""


def report(name: str, error: BaseException) -> str:
    """What a person reads."""
    from p3d_regression.checks.at_start import RejectedConfigError

    end = f"{SETTING}=1 before the command shows where it was raised."
    if isinstance(error, RejectedConfigError):
        return f"\n{name}: {error.for_people()}\n{end}"
    return f"\n{name}: {error}\n{end}"


def _program() -> str | None:
    """The command of pytorch-3dunet that this process runs; None if it is another program."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    script = Path(sys.argv[0]).stem if getattr(sys, "argv", None) else ""
    return next(
        (name for name, module in COMMANDS.items() if name == script or module == getattr(spec, "name", "")), None
    )
