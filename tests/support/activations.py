"""What must hold of every final activation, whatever the version of upstream."""

import math
from typing import Any

import numpy as np
import pytest

from p3d_regression.activations import table
from support.lab import LABEL_RANGE, Job, Lab, Labels, Trained

#: Every final activation by name.
ROWS = {row["name"]: row for row in table.rows()}

#: One of each kind: no module, of torch.nn, with required arguments, over channels, and over channels of this project.
KINDS = ["none", "softplus", "bounded", "softmax", "unit_vector"]

OVER_CHANNELS: dict[str, Labels] = {
    "softmax": "fractions",
    "softmin": "fractions",
    "log_softmax": "logarithms",
    "unit_vector": "directions",
}


def labels_for(row: dict[str, Any]) -> Labels:
    """Labels that the activation can produce."""
    match row["range"]:
        case _ if row["over_channels"]:
            return OVER_CHANNELS[row["name"]]
        case None, None:
            return LABEL_RANGE
        case low, None:
            # some go a little below 0, where no label is
            return low if low < -2 else max(low, 0.0), low + 20.0
        case None, high:
            return high - 20.0, high
        case low, high:
            return low + 0.1 * (high - low), high - 0.1 * (high - low)
    raise ValueError(row)


def trained_with(lab: Lab, environment: str, name: str) -> Trained:
    """Train with an activation, predict with a config that does not name it."""
    row = ROWS[name]
    model = {"out_channels": 2 if row["over_channels"] else 1}
    return lab.do(Job(environment, model | {"final_activation": row["example"]}, model, labels_for(row), iterations=8))


def assert_one_function(trained: Trained, row: dict[str, Any]) -> None:
    """The loss fell, predictions are in the declared range, and the validation loss is that of the predictions."""
    losses = [value for _, value in trained.scalars["train_loss_avg"]]
    assert losses[-1] < losses[0], "the loss did not fall"

    low, high = (math.inf if bound is None else bound for bound in row["range"])
    low = -low if math.isinf(low) else low
    ulp = 1e-6 * max(abs(bound) for bound in (low, high, 1.0) if math.isfinite(bound))
    assert np.isfinite(trained.prediction).all()
    assert trained.prediction.min() >= low - ulp
    assert trained.prediction.max() <= high + ulp
    assert len(np.unique(trained.prediction)) > 100

    # the checkpoint is of the last validation, whose one patch is the volume that was predicted
    on_outputs = np.mean(
        (trained.prediction.astype(np.float64) - trained.labels.reshape(trained.prediction.shape)) ** 2
    )
    assert on_outputs == pytest.approx(trained.scalars["val_loss_avg"][-1][1], rel=1e-6)
