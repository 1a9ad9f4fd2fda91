"""Configs and volumes for the rules of ``p3d-regression check``."""

import copy
from collections.abc import Mapping
from typing import Any


class Silent:
    """Nobody watches the reading."""

    def start(self, what: str, voxels: int) -> None:
        pass

    def advance(self, voxels: int) -> None:
        pass


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with some lines changed: mappings are merged, everything else is replaced."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result
