"""The project's own metrics."""

from typing import Any

from p3d_regression.hookspecs import hookimpl
from p3d_regression.metrics.metric import Metric


@hookimpl
def p3d_metrics() -> list[Metric]:
    return [
        Metric(
            "RMSE",
            _root_mean_squared_error,
            higher_is_better=False,
            summary="root of the mean squared error, in the units of the labels",
            aliases=("RootMeanSquaredError",),
        )
    ]


def _root_mean_squared_error() -> Any:
    from torchmetrics.regression import MeanSquaredError

    return MeanSquaredError(squared=False)
