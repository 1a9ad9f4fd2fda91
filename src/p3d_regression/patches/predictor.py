"""``pytorch3dunet.unet3d.predictor``: predictors understand ``blend``."""

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_method
from p3d_regression.prediction.spec import KEY, blend_of

#: Attribute of a predictor whose config has the key.
_BLEND = "_p3d_blend"


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the predictors, which has just been executed."""
    names = ("StandardPredictor", "LazyPredictor")
    classes = [cls for name in names if isinstance(cls := vars(module).get(name), type)]
    target = f"{module.__name__} predictors"
    if len(classes) < len(names):
        yield Patch(target, "unsupported", f"it has no {' and '.join(names)}")
        return
    yield replace_method(classes, "__init__", _taking, target=f"{target} __init__", detail=f"take the key {KEY}")
    yield replace_method(classes, "__call__", _blending, target=f"{target} __call__", detail="blend patches")


def _taking(original: AnyFunction, patch: Patch) -> AnyFunction:
    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if patch.is_applied and KEY in kwargs:
            setattr(self, _BLEND, blend_of(kwargs.pop(KEY)))
        original(self, *args, **kwargs)

    return __init__


def _blending(original: AnyFunction, patch: Patch) -> AnyFunction:
    @wraps(original)
    def __call__(self: Any, test_loader: Any) -> Any:  # noqa: N807
        blend = getattr(self, _BLEND, None) if patch.is_applied else None
        if blend is None:
            return original(self, test_loader)
        from p3d_regression.prediction.run import predict

        return predict(self, test_loader, blend)

    return __call__
