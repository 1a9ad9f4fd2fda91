"""An array whose axes are stored in any order, seen as a volume of axes (Z, Y, X) or (C, Z, Y, X)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: All axes, in the order of a volume.
ALL = "tczyx"

#: Axes of an array that does not name them, by their number.
BY_NUMBER = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}


class ArrayVolume:
    """An array as a volume: shape (Z, Y, X), or (C, Z, Y, X) with more than one channel.

    Args:
        array: with ``shape`` and ``dtype``, of which parts are read by a tuple of slices, one for each axis.
        axes: one letter of ``tczyx`` for each axis, in the order in which they are stored.
        chunks: of the array, in the same order; None if it has none.
        attrs: of the volume, such as ``voxel_size``.
        name: of the array, at the start of error messages.

    Attributes:
        chunks: in the order of the volume; None if the array has none.
        stored_ndim: number of axes of the array.

    Raises:
        ValueError: it has several points in time.
    """

    def __init__(
        self,
        array: Any,
        axes: str,
        *,
        name: str = "",
        chunks: Sequence[int] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self._array, self._axes, self.stored_ndim = array, axes, len(axes)
        sizes = dict(zip(axes, array.shape, strict=True))
        if sizes.get("t", 1) > 1:
            raise ValueError(f"{name}has {sizes['t']} points in time; write each as a volume of its own")
        self._order = "czyx" if sizes.get("c", 1) > 1 else "zyx"
        self.shape = tuple(int(sizes.get(axis, 1)) for axis in self._order)
        stored = dict(zip(axes, chunks or (), strict=False))
        self.chunks = tuple(int(stored.get(axis, 1)) for axis in self._order) if chunks else None
        # in the byte order of this machine, whatever that of the file
        self.dtype: np.dtype[Any] = np.dtype(array.dtype).newbyteorder("=")
        self.attrs = dict(attrs or {})

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, place: Any) -> npt.NDArray[Any]:
        """A part of the volume.

        Args:
            place: slices and numbers for some or all axes, as in numpy.
        """
        parts = list(place) if isinstance(place, tuple) else [place]
        if not any(part is Ellipsis for part in parts):
            parts.append(Ellipsis)
        gap = next(index for index, part in enumerate(parts) if part is Ellipsis)
        parts[gap : gap + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        numbers = [not isinstance(part, slice) for part in parts]
        wanted = {
            axis: slice(part, part + 1) if is_number else part
            for axis, part, is_number in zip(self._order, parts, numbers, strict=True)
        }
        found = np.asarray(self._array[tuple(wanted.get(axis, slice(0, 1)) for axis in self._axes)], self.dtype)
        lacking = [axis for axis in ALL if axis not in self._axes]
        axes = [*self._axes, *lacking]
        found = found.reshape(found.shape + (1,) * len(lacking)).transpose([axes.index(axis) for axis in ALL])
        found = found[(0,) * (len(ALL) - self.ndim)]
        if "z" in lacking:
            found = found[..., wanted["z"], :, :]
        part: npt.NDArray[Any] = found[tuple(0 if is_number else slice(None) for is_number in numbers)]
        return part
