"""The project's own losses."""

from p3d_regression.losses import modules
from p3d_regression.losses.loss import Loss


def losses() -> list[Loss]:
    return [
        Loss(
            "WeightedSmoothL1Loss",
            modules.WeightedSmoothL1,
            summary="upstream's: SmoothL1Loss with a factor where labels are below or above a threshold",
            example={"threshold": 0.0, "initial_weight": 0.1},
        )
    ]
