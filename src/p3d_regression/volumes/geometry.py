"""Where the voxels of a volume are in space, as its attributes give it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

#: Attributes with the voxel size, in the order Z, Y, X.
SPACING = ("element_size_um", "voxel_size", "resolution", "spacing")

#: Attributes that hold for each volume on the same voxels: voxel size, position, orientation.
GEOMETRY = (*SPACING, "offset", "origin", "affine", "axis_units")

#: Names and symbols of units of length -> as OME-Zarr names them, and in metres.
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("meter", "metre", "m"), ("meter", 1.0)),
    **dict.fromkeys(("centimeter", "cm"), ("centimeter", 1e-2)),
    **dict.fromkeys(("millimeter", "mm"), ("millimeter", 1e-3)),
    **dict.fromkeys(("micrometer", "micron", "microns", "um", "µm", "μm", "\\u00b5m"), ("micrometer", 1e-6)),
    **dict.fromkeys(("nanometer", "nm"), ("nanometer", 1e-9)),
    **dict.fromkeys(("angstrom", "å"), ("angstrom", 1e-10)),
}


def spacing_of(held: Mapping[str, Any]) -> list[float] | None:
    """The size of a voxel along Z, Y and X, as the attributes of a volume give it; None if they do not."""
    for name in SPACING:
        with suppress(KeyError, TypeError, ValueError):
            found = [float(size) for size in held[name]]
            if len(found) == 3:
                return found
    return None


def units_of(held: Mapping[str, Any]) -> list[str] | None:
    """The unit of the voxel size along Z, Y and X; None if it is not known."""
    with suppress(KeyError, TypeError):
        units = [unit.decode() if isinstance(unit, bytes) else str(unit) for unit in held["axis_units"]]
        if len(units) == 3:
            return units
    return ["micrometer"] * 3 if "element_size_um" in held else None


def unit_named(text: object) -> str | None:
    """A unit of length as OME-Zarr names it; None if it is none.

    >>> unit_named("um"), unit_named("pixel")
    ('micrometer', None)
    """
    return _UNITS.get(str(text).strip().lower(), (None, 0.0))[0]


def in_unit(spacing: Sequence[float], units: Sequence[str] | None, wanted: str) -> list[float] | None:
    """A voxel size in another unit; None where its own is not known.

    >>> in_unit([500.0, 1.0, 1.0], ["nanometer", "micrometer", "micrometer"], "micrometer")
    [0.5, 1.0, 1.0]
    """
    names = [unit_named(unit) for unit in units or ()]
    if len(names) != len(spacing) or None in names:
        return None
    factors = [_UNITS[str(name)][1] / _UNITS[wanted][1] for name in names]
    return [float(f"{size * factor:.12g}") for size, factor in zip(spacing, factors, strict=True)]


def moved(held: Mapping[str, Any], start: Sequence[int]) -> dict[str, Any]:
    """The attributes of a part of a volume.

    Args:
        held: of the whole volume. An ``affine`` takes voxel indices (x, y, z) to positions, as in NIfTI.
        start: the first voxel of the part (Z, Y, X).
    """
    found = dict(held)
    with suppress(KeyError, TypeError, ValueError):
        affine = np.array(held["affine"], float)
        affine[:3, 3] += affine[:3, :3] @ np.asarray(start[::-1], float)
        found["affine"] = affine.tolist()
    for name in ("offset", "origin"):
        # in units of the voxel size
        with suppress(KeyError, TypeError, ValueError):
            steps = np.asarray(start, float) * np.asarray(spacing_of(held) or (1, 1, 1))
            found[name] = (np.asarray(held[name], float) + steps).tolist()
    return found
