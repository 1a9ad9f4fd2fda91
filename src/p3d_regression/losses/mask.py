"""Which voxels count."""

import math
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.text import number_in

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """Voxels whose label is ``ignored`` do not count; NaN is a label like others here."""

    ignored: float

    def __call__(self, label: "Tensor") -> "Tensor":
        """Return where the label counts: a tensor of bool of its shape."""
        if math.isnan(self.ignored):
            return ~label.isnan()
        # compared in the labels' own type, in which they were written: large whole numbers are no float32
        whole = not label.is_floating_point() and self.ignored.is_integer()
        return label != (int(self.ignored) if whole else self.ignored)

    def of_array(self, label: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
        """The same for an array."""
        import numpy as np

        counts: npt.NDArray[Any] = ~np.isnan(label) if math.isnan(self.ignored) else label != self.ignored
        return counts

    def __str__(self) -> str:
        return "NaN" if math.isnan(self.ignored) else f"{self.ignored:g}"


def mask_of(value: object) -> Mask | None:
    """The mask that ``loss.ignore_index`` stands for; None if there is none.

    Raises:
        ConfigError: it is not a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        why = f"{reprlib.repr(value)} is not a number; it is the label of the voxels that do not count, or .nan."
        number = number_in(value)
        raise ConfigError("loss.ignore_index", why, write("loss.ignore_index", math.nan if number is None else number))
    return Mask(float(value))
