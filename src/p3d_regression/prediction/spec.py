"""The key ``predictor.blend``: pure data, nothing is predicted."""

import reprlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.text import fold

#: The key of the ``predictor`` section.
KEY = "blend"

PLACE = f"predictor.{KEY}"

Blend = Literal["gaussian", "mean"]

_MEANT: dict[str, Blend | None] = {"gaussian": "gaussian", "mean": "mean", "none": None}


def blend_of(value: object) -> Blend | None:
    """What a config says after ``blend:``; None for pytorch-3dunet's own way.

    Raises:
        ConfigError: it is not understood.

    >>> blend_of("Gaussian"), blend_of(None), blend_of("none")
    ('gaussian', None, None)
    """
    if value is None:
        return None
    if isinstance(value, str) and fold(value) in _MEANT:
        return _MEANT[fold(value)]
    near = get_close_matches(fold(value), list(_MEANT), n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else "."
    message = f"{reprlib.repr(value)} is not one of gaussian, mean, none{hint}"
    raise ConfigError(PLACE, message, write(PLACE, near[0] if near else "gaussian"))


def obstacle(section: Mapping[str, Any]) -> ConfigError | None:
    """What in a ``predictor`` section cannot be done together with blending; None if nothing."""
    if section.get("save_segmentation"):
        message = "class numbers cannot be blended."
        return ConfigError("predictor.save_segmentation", message, write("predictor.save_segmentation", False))
    if section.get("performance_metric") is not None:
        message = "the metrics of pytorch-3dunet compare class numbers, which blending does not make."
        return ConfigError("predictor.performance_metric", message, write("predictor.performance_metric", None))
    return None
