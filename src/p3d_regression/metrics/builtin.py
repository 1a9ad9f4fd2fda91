"""The project's own metrics."""

from typing import Any

from p3d_regression.metrics import modules
from p3d_regression.metrics.metric import Metric


def metrics() -> list[Metric]:
    return [
        Metric(
            "RMSE",
            _root_mean_squared_error,
            higher_is_better=False,
            summary="root of the mean squared error, in the units of the labels",
            aliases=("RootMeanSquaredError",),
        ),
        Metric(
            "R2Score",
            modules.R2,
            higher_is_better=True,
            summary="part of the labels' variance that is explained: 1 is perfect, 0 is the constant guess",
            aliases=("R2",),
        ),
        Metric(
            "StructuralSimilarityIndexMeasure",
            modules.StructuralSimilarity,
            higher_is_better=True,
            summary="SSIM in 3D (2D where patches are flat); data_range is that of the labels",
            on="patches",
            aliases=("SSIM",),
            example={"data_range": 1.0},
        ),
    ]


def _root_mean_squared_error() -> Any:
    from torchmetrics.regression import MeanSquaredError

    return MeanSquaredError(squared=False)
