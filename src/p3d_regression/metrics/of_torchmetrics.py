"""The regression and image metrics of ``torchmetrics`` that compare a volume with its labels."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from p3d_regression.components.component import Refused
from p3d_regression.interval import NON_NEGATIVE
from p3d_regression.labels.floor import ABSOLUTE, SQUARED
from p3d_regression.metrics import builtin
from p3d_regression.metrics.metric import Metric
from p3d_regression.plugins import singleton
from p3d_regression.text import first_sentence

_HIDDEN = {
    "num_outputs": "each channel has a metric of its own, and the score is their mean",
    "multioutput": "each channel has a metric of its own, and the score is their mean",
    "reduction": "the score is a mean",
    "dim": "the score is over the whole validation",
    "keep_sequence_dim": "the score is over the whole validation",
    "power": "all other values are for labels and predictions above 0, and stop at the first one that is not",
}

#: What torchmetrics does not tell of each. The order is that of the table: what is wanted most often first.
_FACTS: dict[str, dict[str, Any]] = {
    "MeanSquaredError": {
        "summary": "MSE; squared false for RMSE",
        "higher_is_better": False,
        "aliases": ("MSE",),
        "voxel_loss": lambda arguments: SQUARED if arguments["squared"] else None,
    },
    "MeanAbsoluteError": {
        "summary": "MAE, in the units of the labels",
        "higher_is_better": False,
        "aliases": ("MAE",),
        "voxel_loss": lambda arguments: ABSOLUTE,
    },
    "PearsonCorrCoef": {
        "summary": "linear correlation; blind to offset and scale",
        "aliases": ("Pearson",),
        "higher_is_better": True,  # a correlation of -1 is no good model
    },
    "ConcordanceCorrCoef": {
        "summary": "correlation, lowered by a wrong offset or scale",
        "aliases": ("Concordance",),
    },
    "SpearmanCorrCoef": {"summary": "correlation of ranks", "aliases": ("Spearman",)},
    "ExplainedVariance": {"summary": "R2 that ignores a constant offset"},
    "NormalizedRootMeanSquaredError": {
        "summary": "RMSE by mean, range, standard deviation or norm of the labels",
        "aliases": ("NRMSE",),
    },
    "PeakSignalNoiseRatio": {
        "summary": "PSNR in dB; data_range is that of the labels",
        "higher_is_better": True,
        "aliases": ("PSNR",),
        "example": {"data_range": 1.0},
    },
    "MeanSquaredLogError": {"outputs": NON_NEGATIVE, "labels": NON_NEGATIVE},
    "TweedieDevianceScore": {"higher_is_better": False},
    "CriticalSuccessIndex": {"example": {"threshold": 0.5}},
    "MinkowskiDistance": {"example": {"p": 3.0}},
}

#: What works on a few numbers, and not on the voxels of a volume.
_REFUSED = {
    "KendallRankCorrCoef": "it compares every voxel with every other one; SpearmanCorrCoef sorts them",
    "LogCoshError": "it overflows for errors above 709; the loss HuberLoss and the metric MAE can be used instead",
    "MultiScaleStructuralSimilarityIndexMeasure": "its windows need patches of more than 160 voxels a side; see SSIM",
}

#: Of the image metrics, those that look at single voxels.
_IMAGES_BY_VOXEL = ("PeakSignalNoiseRatio",)

#: Built in, in another form.
_BUILT_IN = ("R2Score", "StructuralSimilarityIndexMeasure")

#: What stands in where torchmetrics cannot be imported, so that pytorch-3dunet's metrics can be masked there too.
_STAND_INS: dict[str, Callable[..., Any]] = {
    "MeanSquaredError": builtin.mean_squared_error,
    "MeanAbsoluteError": builtin.mean_absolute_error,
    "PeakSignalNoiseRatio": builtin.peak_signal_noise_ratio,
}


@singleton
def torchmetrics_error() -> str | None:
    """Why torchmetrics cannot be imported, in one line; None if it can be.

    With a torchvision that does not fit torch it is ``RuntimeError: operator torchvision::nms does not exist``. The
    project's own metrics work without it: the plugin is active, and ``doctor`` shows this as a problem of its own.
    """
    try:
        from torchmetrics import image, regression  # noqa: F401
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def metrics() -> list[Metric | Refused]:
    if torchmetrics_error():
        return [Metric(name, build, **_FACTS[name]) for name, build in _STAND_INS.items()]
    from torchmetrics import image, regression

    found = {name: getattr(regression, name) for name in regression.__all__ if name not in _BUILT_IN}
    found |= {name: getattr(image, name) for name in _IMAGES_BY_VOXEL}
    others = [name for name in image.__all__ if name not in (*found, *_BUILT_IN)]
    order = [*(name for name in _FACTS if "summary" in _FACTS[name]), *found]
    return [
        *(_metric(found[name]) for name in sorted(found, key=order.index)),
        *(Refused(name, _REFUSED.get(name, "it is for pictures, or needs a trained network")) for name in others),
    ]


def _metric(cls: Any) -> Metric | Refused:
    name = cls.__name__
    if name in _REFUSED:
        return Refused(name, _REFUSED[name])
    build, facts = _builder(cls), _FACTS.get(name, {})
    example = facts.get("example", {})
    if reason := _reason_against(build, example):
        return Refused(name, reason)
    general = {"summary": first_sentence(cls), "higher_is_better": cls.higher_is_better}
    return Metric(name, build, keeps_voxels=_keeps_voxels(build, example), hidden=_HIDDEN, **general | facts)


def _builder(cls: Any) -> Callable[..., Any]:
    """The class, with the signature of the arguments that a config may give."""

    def build(**arguments: Any) -> Any:
        if arguments.get("data_range", 1.0) <= 0:
            raise ValueError("data_range must be above 0")
        return cls(**arguments)

    parameters = inspect.signature(cls).parameters.values()
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_asked_for(p).replace(kind=p.KEYWORD_ONLY) for p in parameters if p.kind is not p.VAR_KEYWORD]
    )
    return build


def _asked_for(parameter: inspect.Parameter) -> inspect.Parameter:
    """With one number for a range: two would not only be a range, predictions would be clipped to them."""
    if parameter.name != "data_range":
        return parameter
    # older versions took the range of what they were shown first
    return parameter.replace(default=parameter.empty, annotation=float)


def _reason_against(build: Callable[..., Any], example: dict[str, Any]) -> str | None:
    import torch

    labels = torch.linspace(0.1, 0.9, 32, dtype=torch.float64, device="cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no config names the class
            metric = build(**example)
            metric.update(labels.flip(0), labels)
            value = metric.compute()
    except Exception as error:
        return f"it does not compare numbers one by one ({str(error).splitlines()[0][:100]})"
    return None if value.numel() == 1 and value.isfinite() else "it does not return a single number"


def _keeps_voxels(build: Callable[..., Any], example: dict[str, Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so, and so does the table
        return any(isinstance(state, list) for state in build(**example).metric_state.values())
