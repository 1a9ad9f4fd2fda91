"""Regression for pytorch-3dunet: upstream's own commands understand ``model.final_activation``.

Installing the package is enough for ``train3dunet`` and ``predict3dunet``. The names below are for those who
build and train models from Python, or write a plugin. They are imported on first use: importing this package
imports neither torch nor pytorch3dunet nor any other dependency.
"""

from typing import TYPE_CHECKING, Any

from p3d_regression._version import __version__

if TYPE_CHECKING:
    from p3d_regression.activations.activation import Activation
    from p3d_regression.checks.rule import Rule
    from p3d_regression.errors import (
        CheckpointMismatchError,
        ConfigError,
        Found,
        NonFiniteLossError,
        UnsupportedUpstreamError,
    )
    from p3d_regression.hookspecs import hookimpl
    from p3d_regression.interval import Interval
    from p3d_regression.labels.floor import VoxelLoss
    from p3d_regression.losses.loss import Loss
    from p3d_regression.metrics.metric import Metric
    from p3d_regression.model.unet import set_final_activation, set_target_scaling
    from p3d_regression.patches.activation import activate, deactivate, is_active

__all__ = [
    "Activation",
    "CheckpointMismatchError",
    "ConfigError",
    "Found",
    "Interval",
    "Loss",
    "Metric",
    "NonFiniteLossError",
    "Rule",
    "UnsupportedUpstreamError",
    "VoxelLoss",
    "__version__",
    "activate",
    "deactivate",
    "hookimpl",
    "is_active",
    "set_final_activation",
    "set_target_scaling",
]

_HOME = {
    "Activation": "p3d_regression.activations.activation",
    "CheckpointMismatchError": "p3d_regression.errors",
    "ConfigError": "p3d_regression.errors",
    "Found": "p3d_regression.errors",
    "Interval": "p3d_regression.interval",
    "Loss": "p3d_regression.losses.loss",
    "Metric": "p3d_regression.metrics.metric",
    "NonFiniteLossError": "p3d_regression.errors",
    "Rule": "p3d_regression.checks.rule",
    "UnsupportedUpstreamError": "p3d_regression.errors",
    "VoxelLoss": "p3d_regression.labels.floor",
    "activate": "p3d_regression.patches.activation",
    "deactivate": "p3d_regression.patches.activation",
    "hookimpl": "p3d_regression.hookspecs",
    "is_active": "p3d_regression.patches.activation",
    "set_final_activation": "p3d_regression.model.unet",
    "set_target_scaling": "p3d_regression.model.unet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
