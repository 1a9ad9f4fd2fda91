"""All metrics that a config may name: the project's own, those of ``torchmetrics``, those of plugins."""

from p3d_regression import plugins
from p3d_regression.components.component import Refused
from p3d_regression.components.registry import BUILT_IN, TORCHMETRICS, Family, Registry
from p3d_regression.metrics import builtin, of_torchmetrics
from p3d_regression.metrics.metric import Metric
from p3d_regression.plugins import singleton

FAMILY = Family(
    Metric,
    hook="p3d_metrics",
    example="R2Score",
    fallback="For unbounded values write MeanSquaredError, MeanAbsoluteError or R2Score.",
)


@singleton
def registry() -> Registry[Metric]:
    """The registry of this process, made at the first call: plugins and torchmetrics are loaded then."""
    own: dict[str, list[Metric] | list[Metric | Refused]] = {
        BUILT_IN: builtin.metrics(),
        TORCHMETRICS: of_torchmetrics.metrics(),
    }
    return Registry(FAMILY, own, plugins.installed())
