"""``pytorch3dunet.unet3d.metrics``: its builder understands this project's metrics."""

from collections.abc import Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch upstream's metrics, whose module has just been executed."""
    yield _patch_get_evaluation_metric(module)


def _patch_get_evaluation_metric(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def get_evaluation_metric(config: Any) -> Any:
            if not (patch.is_applied and isinstance(config, Mapping)):
                return original(config)
            from p3d_regression.training.plan import current_or

            plan = current_or(config)
            if plan.metric is None:
                return original(config)
            from p3d_regression.metrics.score import Score

            return Score(plan.metric, plan.mask, plan.predicted)

        return get_evaluation_metric

    return replace_function(module, "get_evaluation_metric", wrap, parameters=["config"])
