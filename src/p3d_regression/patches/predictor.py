"""``pytorch3dunet.unet3d.predictor``: predictors understand the keys of this project."""

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_method
from p3d_regression.prediction.spec import KEYS, is_ours, options_of

#: Attributes of a predictor whose config has such keys: what they say, and what follows.
_OPTIONS, _PREDICTION, _SCORING = "_p3d_options", "_p3d_prediction", "_p3d_scoring"

#: Attribute of a loader: the config that it comes from.
CONFIG = "_p3d_config"


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the predictors, which has just been executed."""
    names = ("StandardPredictor", "LazyPredictor")
    classes = [cls for name in names if isinstance(cls := vars(module).get(name), type)]
    target = f"{module.__name__} predictors"
    if len(classes) < len(names):
        yield Patch(target, "unsupported", f"it has no {' and '.join(names)}")
        return
    detail = f"take the keys {', '.join(KEYS)}"
    yield replace_method(classes, "__init__", _taking, target=f"{target} __init__", detail=detail)
    yield replace_method(classes, "__call__", _blending, target=f"{target} __call__", detail="blend patches")


def _taking(original: AnyFunction, patch: Patch) -> AnyFunction:
    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        given = {key: kwargs.pop(key) for key in KEYS if key in kwargs} if patch.is_applied else {}
        if given:
            setattr(self, _OPTIONS, options_of(given))
        if patch.is_applied and is_ours(kwargs.get("performance_metric")):
            from p3d_regression.evaluation.at_prediction import Scoring

            setattr(self, _SCORING, Scoring.of(kwargs.pop("performance_metric"), kwargs.get("gt_internal_path")))
        original(self, *args, **kwargs)

    return __init__


def _blending(original: AnyFunction, patch: Patch) -> AnyFunction:
    @wraps(original)
    def __call__(self: Any, test_loader: Any) -> Any:  # noqa: N807
        if not patch.is_applied:
            return original(self, test_loader)
        scoring = getattr(self, _SCORING, None)
        if getattr(self, _OPTIONS, None) is None:
            found = original(self, test_loader)
        elif not _predict(self, test_loader):
            return None  # other processes have not finished
        else:
            found = None
        if scoring is None:
            return found
        scores = scoring.score(self, test_loader, getattr(test_loader, CONFIG, {}))
        # pytorch-3dunet would take the mean over the volumes that happen to end in this process
        return None if _is_shared(self) else scores

    return __call__


def _is_shared(predictor: Any) -> bool:
    prediction = getattr(predictor, _PREDICTION, None)
    return prediction is not None and prediction.share.count > 1


def _predict(predictor: Any, loader: Any) -> bool:
    """Predict a volume in this project's way; returns whether its file is complete."""
    from p3d_regression.prediction.run import Prediction

    prediction = getattr(predictor, _PREDICTION, None)
    if prediction is None:
        prediction = Prediction(predictor, getattr(loader, CONFIG, {}), getattr(predictor, _OPTIONS))
        setattr(predictor, _PREDICTION, prediction)
    return bool(prediction.predict(loader))
