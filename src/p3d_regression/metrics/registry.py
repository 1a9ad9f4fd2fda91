"""All metrics that a config may name: the project's own, those of ``torchmetrics``, those of plugins."""

from p3d_regression import installed
from p3d_regression.components.registry import Family, Registry
from p3d_regression.metrics.metric import Metric
from p3d_regression.once import once

EXAMPLE = "Example:\n  eval_metric:\n    name: R2Score"

FAMILY = Family(
    Metric,
    hook="p3d_metrics",
    noun="a metric",
    command="metrics",
    example=EXAMPLE,
    fallback="for unbounded values write MeanSquaredError, MeanAbsoluteError or R2Score.",
)


@once
def registry() -> Registry[Metric]:
    """The registry of this process, made at the first call: plugins and torchmetrics are loaded then."""
    return Registry(FAMILY, installed.everything())
