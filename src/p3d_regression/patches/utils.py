"""``pytorch3dunet.unet3d.utils``: checkpoints of trainings that use this project are written as a whole."""

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module that saves checkpoints, which has just been executed."""
    yield _patch_save_checkpoint(module)


def _patch_save_checkpoint(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def save_checkpoint(state: Any, is_best: bool, checkpoint_dir: str) -> Any:
            if not patch.is_applied:
                return original(state, is_best, checkpoint_dir)
            from p3d_regression.training.saving import save

            return save(original, state, is_best, checkpoint_dir)

        return save_checkpoint

    return replace_function(module, "save_checkpoint", wrap, parameters=["state", "is_best", "checkpoint_dir"])
