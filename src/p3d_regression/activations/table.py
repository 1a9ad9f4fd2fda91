"""What ``p3d-regression activations`` shows: every name that a config may use, as plain data."""

import math
from typing import Any

from p3d_regression.activations.activation import Activation
from p3d_regression.activations.registry import registry, resolve
from p3d_regression.components.parameters import with_arguments
from p3d_regression.components.registry import Offer
from p3d_regression.components.table import arguments, origin
from p3d_regression.errors import ConfigError


def rows() -> list[dict[str, Any]]:
    """One row per final activation.

    Returns:
        Each with ``name``; ``aliases``; ``example``, a valid value of ``final_activation``; ``arguments``, each with
        ``name``, ``kind``, ``required`` and ``default``; ``range`` of the example as ``[low, high]``, with None for
        no bound, and as ``range_text`` (None and ``unknown`` where a plugin is broken); ``over_channels``;
        ``origin``, which is ``built-in``, ``torch.nn`` or ``plugin``; the ``distribution`` of a plugin; ``use`` in
        one line.
    """
    return [_row(offer) for offer in registry().offers()]


def _row(offer: Offer[Activation]) -> dict[str, Any]:
    activation = offer.component
    example = with_arguments(activation.name, activation.example)
    use, interval = activation.summary, None
    try:
        # over the channels it needs a second one
        interval = resolve(example, 2).ranges[0]
    except ConfigError as error:
        # one plugin's mistake must not cost the table
        use = f"broken: {error}".splitlines()[0]
    return {
        "name": activation.name,
        "aliases": list(activation.aliases),
        "example": example,
        "arguments": arguments(activation),
        "range": [_finite(interval.low), _finite(interval.high)] if interval else None,
        "range_text": str(interval) if interval else "unknown",
        "over_channels": activation.over_channels,
        **origin(offer),
        "use": use,
    }


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
