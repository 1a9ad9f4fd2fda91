"""What ``p3d-regression metrics`` shows: every metric that a config may name, as plain data."""

from typing import Any

from p3d_regression.components.parameters import with_arguments
from p3d_regression.components.registry import Offer
from p3d_regression.components.table import arguments, origin
from p3d_regression.metrics.metric import Metric
from p3d_regression.metrics.registry import registry


def rows() -> list[dict[str, Any]]:
    """One row per metric.

    Returns:
        Each with ``name``; ``aliases``; ``example``, a valid ``eval_metric`` section; ``arguments``, each with
        ``name``, ``kind``, ``required`` and ``default``; ``higher_is_better``; ``ignores``, whether voxels can be left
        out; ``keeps_voxels``, whether all are in memory at the end of a validation; ``origin``, which is ``built-in``,
        ``torchmetrics`` or ``plugin``; the ``distribution`` of a plugin; ``use`` in one line.
    """
    return [_row(offer) for offer in registry().offers()]


def _row(offer: Offer[Metric]) -> dict[str, Any]:
    metric = offer.component
    example = with_arguments(metric.name, metric.example)
    return {
        "name": metric.name,
        "aliases": list(metric.aliases),
        "example": example if isinstance(example, dict) else {"name": example},
        "arguments": arguments(metric),
        "higher_is_better": metric.higher_is_better,
        "ignores": metric.on == "voxels",
        "keeps_voxels": metric.keeps_voxels,
        **origin(offer),
        "use": metric.summary,
    }
