"""The hooks a plugin may implement: functions of these names, marked with ``@p3d_regression.hookimpl``.

A plugin is a module named in its package's entry points, group ``p3d_regression``.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from p3d_regression.activations.activation import Activation
    from p3d_regression.checks.rule import Rule
    from p3d_regression.components.component import Refused
    from p3d_regression.losses.loss import Loss
    from p3d_regression.metrics.metric import Metric

#: pluggy's project name, and the entry-point group of plugins.
PROJECT = "p3d_regression"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def p3d_activations() -> "Iterable[Activation | Refused]":  # type: ignore[empty-body]
    """Return the final activations that a config may name because this plugin is installed."""


@hookspec
def p3d_losses() -> "Iterable[Loss | Refused]":  # type: ignore[empty-body]
    """Return the losses that a config may name because this plugin is installed."""


@hookspec
def p3d_metrics() -> "Iterable[Metric | Refused]":  # type: ignore[empty-body]
    """Return the metrics that a config may name because this plugin is installed."""


@hookspec
def p3d_rules() -> "Iterable[Rule]":  # type: ignore[empty-body]
    """Return rules for ``p3d-regression check``; their codes start with letters of the plugin's own, not with P3D."""
