"""``pytorch3dunet.unet3d.losses``: its builder understands this project's losses and masks."""

from collections.abc import Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch upstream's losses, whose module has just been executed."""
    yield _patch_get_loss_criterion(module)


def _patch_get_loss_criterion(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def get_loss_criterion(config: Any) -> Any:
            if not (patch.is_applied and isinstance(config, Mapping)):
                return original(config)
            from p3d_regression.training.plan import current_or

            plan = current_or(config)
            if plan.loss is None:
                return original(config)
            from p3d_regression.losses.build import build

            criterion = build(plan.loss, plan.mask)
            device = config.get("device")
            return criterion.to(device) if device else criterion

        return get_loss_criterion

    return replace_function(module, "get_loss_criterion", wrap, parameters=["config"])
