"""The regression and image metrics of ``torchmetrics`` that compare a volume with its labels."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from p3d_regression.components.component import Refused
from p3d_regression.hookspecs import hookimpl
from p3d_regression.metrics.metric import Metric

_HIDDEN = {
    "num_outputs": "each channel has a metric of its own, and the score is their mean",
    "multioutput": "each channel has a metric of its own, and the score is their mean",
    "reduction": "the score is a mean",
    "dim": "the score is over the whole validation",
    "keep_sequence_dim": "the score is over the whole validation",
    "return_full_image": "the score is a number",
    "return_contrast_sensitivity": "the score is a number",
}

#: What each is for; the order is that of the table, what is wanted most often first.
_SUMMARIES = {
    "MeanSquaredError": "MSE; squared false for RMSE",
    "MeanAbsoluteError": "MAE, in the units of the labels",
    "R2Score": "part of the labels' variance that is explained: 1 is perfect, 0 is the constant guess",
    "PearsonCorrCoef": "linear correlation; blind to offset and scale",
    "ConcordanceCorrCoef": "correlation that offset and scale count against",
    "SpearmanCorrCoef": "correlation of ranks",
    "ExplainedVariance": "R2 that a constant offset does not count against",
    "NormalizedRootMeanSquaredError": "RMSE by mean, range, standard deviation or norm of the labels",
    "PeakSignalNoiseRatio": "PSNR in dB; data_range is that of the labels",
    "StructuralSimilarityIndexMeasure": "SSIM in 3D (2D where patches are flat); data_range is that of the labels",
    "MultiScaleStructuralSimilarityIndexMeasure": "SSIM at five scales; needs patches of more than 160 voxels a side",
}

_ALIASES = {
    "MeanSquaredError": ("MSE",),
    "MeanAbsoluteError": ("MAE",),
    "R2Score": ("R2",),
    "PearsonCorrCoef": ("Pearson",),
    "SpearmanCorrCoef": ("Spearman",),
    "ConcordanceCorrCoef": ("Concordance",),
    "NormalizedRootMeanSquaredError": ("NRMSE",),
    "PeakSignalNoiseRatio": ("PSNR",),
    "StructuralSimilarityIndexMeasure": ("SSIM",),
    "MultiScaleStructuralSimilarityIndexMeasure": ("MS_SSIM",),
}

#: Where torchmetrics says neither: a correlation of -1 is no good model.
_HIGHER_IS_BETTER = {"PearsonCorrCoef": True, "TweedieDevianceScore": False}

#: What works on a few numbers, and not on the voxels of a volume.
_REFUSED = {"KendallRankCorrCoef": "it compares every voxel with every other one; SpearmanCorrCoef sorts them"}

_EXAMPLES: dict[str, dict[str, Any]] = {
    "CriticalSuccessIndex": {"threshold": 0.5},
    "MinkowskiDistance": {"p": 3.0},
    "PeakSignalNoiseRatio": {"data_range": 1.0},
    "StructuralSimilarityIndexMeasure": {"data_range": 1.0},
    "MultiScaleStructuralSimilarityIndexMeasure": {"data_range": 1.0},
}

#: Of the image metrics, those that compare a volume with its labels by arithmetic alone.
_ON_PATCHES = ("StructuralSimilarityIndexMeasure", "MultiScaleStructuralSimilarityIndexMeasure")
_IMAGES_BY_VOXEL = ("PeakSignalNoiseRatio",)


@hookimpl
def p3d_metrics() -> list[Metric | Refused]:
    from torchmetrics import image, regression

    found = {name: getattr(regression, name) for name in regression.__all__}
    found |= {name: getattr(image, name) for name in (*_IMAGES_BY_VOXEL, *_ON_PATCHES)}
    others = [name for name in image.__all__ if name not in found]
    order = [*_SUMMARIES, *found]
    return [
        *(_metric(found[name]) for name in sorted(found, key=order.index)),
        *(Refused(name, "it is for pictures, or needs a trained network") for name in others),
    ]


def _metric(cls: Any) -> Metric | Refused:
    name = cls.__name__
    example, on_patches = _EXAMPLES.get(name, {}), name in _ON_PATCHES
    build = _builder(cls)
    if name in _REFUSED:
        return Refused(name, _REFUSED[name])
    if not on_patches and (reason := _reason_against(build, example)):
        return Refused(name, reason)
    return Metric(
        name,
        build,
        higher_is_better=_HIGHER_IS_BETTER.get(name, cls.higher_is_better),
        summary=_SUMMARIES.get(name, f"torchmetrics.{name}"),
        on="patches" if on_patches else "voxels",
        keeps_voxels=not on_patches and _keeps_voxels(build, example),
        aliases=_ALIASES.get(name, ()),
        example=example,
        hidden=_HIDDEN,
    )


def _builder(cls: Any) -> Callable[..., Any]:
    """The class, with a signature of what a config can say."""

    def build(**arguments: Any) -> Any:
        # torchmetrics wants tuples where YAML has lists
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
        return cls(**given)

    parameters = inspect.signature(cls).parameters.values()
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_asked_for(p).replace(kind=p.KEYWORD_ONLY) for p in parameters if p.kind is not p.VAR_KEYWORD]
    )
    return build


def _asked_for(parameter: inspect.Parameter) -> inspect.Parameter:
    """Without a range of the data each batch would be measured by its own."""
    if parameter.name != "data_range":
        return parameter
    return parameter.replace(default=parameter.empty, annotation=float | list[float])


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
