"""The regression and image metrics of ``torchmetrics`` that compare a volume with its labels."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from p3d_regression.components.component import Refused
from p3d_regression.interval import NON_NEGATIVE, REAL_LINE
from p3d_regression.metrics.metric import Metric

_HIDDEN = {
    "num_outputs": "each channel has a metric of its own, and the score is their mean",
    "multioutput": "each channel has a metric of its own, and the score is their mean",
    "reduction": "the score is a mean",
    "dim": "the score is over the whole validation",
    "keep_sequence_dim": "the score is over the whole validation",
    "power": "the others are for labels and predictions above 0 only, and stop at the first one that is not",
}

#: What each is for; the order is that of the table, what is wanted most often first.
_SUMMARIES = {
    "MeanSquaredError": "MSE; squared false for RMSE",
    "MeanAbsoluteError": "MAE, in the units of the labels",
    "PearsonCorrCoef": "linear correlation; blind to offset and scale",
    "ConcordanceCorrCoef": "correlation that offset and scale count against",
    "SpearmanCorrCoef": "correlation of ranks",
    "ExplainedVariance": "R2 that a constant offset does not count against",
    "NormalizedRootMeanSquaredError": "RMSE by mean, range, standard deviation or norm of the labels",
    "PeakSignalNoiseRatio": "PSNR in dB; data_range is that of the labels",
}

_ALIASES = {
    "MeanSquaredError": ("MSE",),
    "MeanAbsoluteError": ("MAE",),
    "PearsonCorrCoef": ("Pearson",),
    "SpearmanCorrCoef": ("Spearman",),
    "ConcordanceCorrCoef": ("Concordance",),
    "NormalizedRootMeanSquaredError": ("NRMSE",),
    "PeakSignalNoiseRatio": ("PSNR",),
}

#: Of labels and predictions that are not negative.
_NON_NEGATIVE = ("MeanSquaredLogError",)

#: Where torchmetrics says neither: a correlation of -1 is no good model.
_HIGHER_IS_BETTER = {"PearsonCorrCoef": True, "TweedieDevianceScore": False}

#: What works on a few numbers, and not on the voxels of a volume.
_REFUSED = {
    "KendallRankCorrCoef": "it compares every voxel with every other one; SpearmanCorrCoef sorts them",
    "LogCoshError": "it overflows for errors above 709; the loss HuberLoss and the metric MAE are its like",
    "MultiScaleStructuralSimilarityIndexMeasure": "its windows need patches of more than 160 voxels a side; see SSIM",
}

_EXAMPLES: dict[str, dict[str, Any]] = {
    "CriticalSuccessIndex": {"threshold": 0.5},
    "MinkowskiDistance": {"p": 3.0},
    "PeakSignalNoiseRatio": {"data_range": 1.0},
}

#: Of the image metrics, those that look at single voxels.
_IMAGES_BY_VOXEL = ("PeakSignalNoiseRatio",)

#: Built in, in another form.
_OURS = ("R2Score", "StructuralSimilarityIndexMeasure")


def metrics() -> list[Metric | Refused]:
    from torchmetrics import image, regression

    found = {name: getattr(regression, name) for name in regression.__all__ if name not in _OURS}
    found |= {name: getattr(image, name) for name in _IMAGES_BY_VOXEL}
    others = [name for name in image.__all__ if name not in (*found, *_OURS)]
    order = [*_SUMMARIES, *found]
    return [
        *(_metric(found[name]) for name in sorted(found, key=order.index)),
        *(Refused(name, _REFUSED.get(name, "it is for pictures, or needs a trained network")) for name in others),
    ]


def _metric(cls: Any) -> Metric | Refused:
    name = cls.__name__
    example = _EXAMPLES.get(name, {})
    build = _builder(cls)
    if name in _REFUSED:
        return Refused(name, _REFUSED[name])
    if reason := _reason_against(build, example):
        return Refused(name, reason)
    return Metric(
        name,
        build,
        higher_is_better=_HIGHER_IS_BETTER.get(name, cls.higher_is_better),
        summary=_SUMMARIES.get(name, f"torchmetrics.{name}"),
        outputs=NON_NEGATIVE if name in _NON_NEGATIVE else REAL_LINE,
        labels=NON_NEGATIVE if name in _NON_NEGATIVE else REAL_LINE,
        keeps_voxels=_keeps_voxels(build, example),
        aliases=_ALIASES.get(name, ()),
        example=example,
        hidden=_HIDDEN,
    )


def _builder(cls: Any) -> Callable[..., Any]:
    """The class, with a signature of what a config can say."""

    def build(**arguments: Any) -> Any:
        if arguments.get("data_range", 1.0) <= 0:
            raise ValueError("data_range has to be above 0")
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
            warnings.simplefilter("ignore")  # of a class that nobody has asked for
            metric = build(**example)
            metric.update(labels.flip(0), labels)
            value = metric.compute()
    except Exception as error:
        return f"it does not compare numbers one by one ({str(error).splitlines()[0][:100]})"
    return None if value.numel() == 1 and value.isfinite() else "it does not make one number of many"


def _keeps_voxels(build: Callable[..., Any], example: dict[str, Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so, and so does the table
        return any(isinstance(state, list) for state in build(**example).metric_state.values())
