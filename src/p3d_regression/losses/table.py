"""What ``p3d-regression losses`` shows: every loss that a config may name, as plain data."""

from collections.abc import Mapping
from typing import Any

from p3d_regression.components.parameters import with_arguments
from p3d_regression.components.registry import BUILT_IN, Offer
from p3d_regression.components.table import arguments, origin
from p3d_regression.interval import Interval
from p3d_regression.losses.loss import Loss
from p3d_regression.losses.registry import registry
from p3d_regression.losses.spec import CHANNELWISE, COMPOSITES, EXAMPLES, WEIGHTED_SUM

_COMPOSED = {
    CHANNELWISE: "a loss for each channel of the labels, added up: mask and distance, mean and variance",
    WEIGHTED_SUM: "several losses of the same output, added up",
}


def rows() -> list[dict[str, Any]]:
    """One row per loss.

    Returns:
        Each with ``name``; ``aliases``; ``example``, a valid value of a ``loss`` section; ``arguments``, each with
        ``name``, ``kind``, ``required`` and ``default``; ``outputs`` and ``labels``, the ranges that it is for, as
        text; ``ignores``, whether voxels can be left out; ``output_channels`` per channel of the labels; ``origin``,
        which is ``built-in``, ``torch.nn``, ``pytorch3dunet`` or ``plugin``; the ``distribution`` of a plugin; ``use``
        in one line.
    """
    return [*(_row(offer) for offer in registry().offers()), *map(_composed, COMPOSITES)]


def _row(offer: Offer[Loss]) -> dict[str, Any]:
    loss = offer.component
    example = with_arguments(loss.name, loss.example)
    chosen = {name: p.default for name, p in loss.parameters.items()} | dict(loss.example)
    return {
        "name": loss.name,
        "aliases": list(loss.aliases),
        "example": example if isinstance(example, dict) else {"name": example},
        "arguments": arguments(loss),
        "outputs": _range(loss.outputs_of, chosen) + (" and a variance" if loss.variance else ""),
        "labels": _range(loss.labels_of, chosen),
        "ignores": loss.per_voxel,
        "output_channels": 2 if loss.variance else 1,
        **origin(offer),
        "use": loss.summary,
    }


def _range(range_of: Any, chosen: Mapping[str, Any]) -> str:
    try:
        found = range_of(chosen)
    except Exception:
        # one plugin's mistake must not cost the table
        return "unknown"
    return str(found) if isinstance(found, Interval) else "unknown"


def _composed(name: str) -> dict[str, Any]:
    import yaml

    return {
        "name": name,
        "aliases": [],
        "example": yaml.safe_load(EXAMPLES[name])["loss"],
        "arguments": [{"name": COMPOSITES[name], "kind": "a list of losses", "required": True, "default": None}],
        "outputs": "of its losses",
        "labels": "of its losses",
        "ignores": True,
        "output_channels": 1,
        "origin": BUILT_IN,
        "distribution": None,
        "use": _COMPOSED[name],
    }
