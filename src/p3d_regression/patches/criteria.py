"""``pytorch3dunet.unet3d.losses`` and ``.metrics``: their builders understand losses and metrics of the plugin."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from p3d_regression._patching import AnyFunction, Patch, replace_function

if TYPE_CHECKING:
    from p3d_regression.training.plan import Plan


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the losses or that of the metrics, which has just been executed."""
    name, build = _BUILDERS[module.__name__]

    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def builder(config: Any) -> Any:
            if not (patch.is_applied and isinstance(config, Mapping)):
                return original(config)
            from p3d_regression.training.plan import current_or

            built = build(current_or(config), config)
            return original(config) if built is None else built

        return builder

    yield replace_function(module, name, wrap, parameters=["config"])


def _loss(plan: "Plan", config: Mapping[str, Any]) -> Any:
    if plan.loss is None:
        return None
    from p3d_regression.losses.build import build

    criterion = build(plan.loss, plan.mask)
    device = config.get("device")
    return criterion.to(device) if device else criterion


def _metric(plan: "Plan", config: Mapping[str, Any]) -> Any:
    if plan.metric is None:
        return None
    from p3d_regression.metrics.score import Score

    return Score(plan.metric, plan.mask, plan.predicted)


#: Module -> its builder, and what builds in its place, or returns None to leave it to pytorch-3dunet.
_BUILDERS: dict[str, tuple[str, Callable[["Plan", Mapping[str, Any]], Any]]] = {
    "pytorch3dunet.unet3d.losses": ("get_loss_criterion", _loss),
    "pytorch3dunet.unet3d.metrics": ("get_evaluation_metric", _metric),
}
