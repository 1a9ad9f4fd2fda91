"""Which values a final activation can produce."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """All real numbers from ``low`` to ``high``, in the units of the labels.

    An infinite end is never attained, and is written with a round bracket: ``(-inf, inf)``.
    """

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        left = "(" if math.isinf(self.low) else "["
        right = ")" if math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


REAL_LINE = Interval()
