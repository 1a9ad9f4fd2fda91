"""``pytorch3dunet.unet3d.trainer``: its config is checked; a pre-trained checkpoint may get a new final activation."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression import checkpoint, upstream
from p3d_regression.upstream.patching import AnyFunction, Patch, replace_function


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch upstream's trainer module, which has just been executed."""
    yield _patch_create_trainer(module)


def _patch_create_trainer(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def create_trainer(config: Any) -> Any:
            if patch.is_applied:
                upstream.check_at_start(config, "train")
            allow = patch.is_applied and _starts_from_pre_trained(config)
            with checkpoint.new_head_allowed() if allow else nullcontext():
                return original(config)

        return create_trainer

    return replace_function(module, "create_trainer", wrap, parameters=["config"])


def _starts_from_pre_trained(config: Any) -> bool:
    trainer = config.get("trainer") if isinstance(config, Mapping) else None
    if not isinstance(trainer, Mapping):
        return False
    # upstream looks at pre_trained only where resume is not given
    return trainer.get("resume") is None and trainer.get("pre_trained") is not None
