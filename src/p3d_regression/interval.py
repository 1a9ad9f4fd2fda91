"""Closed intervals of real numbers: ranges of outputs and of labels."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """All real numbers from ``low`` to ``high``, in the units of the labels.

    A finite end counts as attained: in floating point a sigmoid reaches 0 and 1. An infinite end is written with
    a round bracket, a single number with braces.

    >>> str(Interval(0.0)), str(Interval(-3, 7)), str(Interval(1, 1))
    ('[0, inf)', '[-3, 7]', '{1}')
    >>> 7 in Interval(-3, 7), math.nan in Interval()
    (True, False)
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval from {self.low} to {self.high} holds no number")

    def __contains__(self, value: float) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{{{self.low:g}}}"
        left = "(" if math.isinf(self.low) else "["
        right = ")" if math.isinf(self.high) else "]"
        return f"{left}{self.low:.7g}, {self.high:.7g}{right}"


REAL_LINE = Interval()
NON_NEGATIVE = Interval(0.0)
NON_POSITIVE = Interval(-math.inf, 0.0)
UNIT = Interval(0.0, 1.0)
