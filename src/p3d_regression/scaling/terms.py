"""What is known of the scaling of one output channel."""

from dataclasses import asdict, dataclass, field

#: Of float32, in which the network computes.
LARGEST = 3.4e38
SMALLEST = 1.2e-38


def single(value: float) -> float:
    """As float32, in which the network computes, with no more digits than that has: a line of the log can be pasted.

    >>> single(1 / 3), single(12.5)
    (0.33333334, 12.5)
    """
    import numpy as np

    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


@dataclass(frozen=True)
class Numbers:
    """Of one output channel, in the units of the labels."""

    mean: float
    std: float


#: Leaves a channel as it is.
IDENTITY = Numbers(0.0, 1.0)

#: ``patch``: the output follows the mean of the raw patch; ``residual``: it follows the raw volume voxel by voxel.
FOLLOWING = ("patch", "residual")


@dataclass(frozen=True)
class Line:
    """Numbers of an output channel that follows the raw volume.

    Attributes:
        intercept, slope: from raw values, as the network sees them, to the units of the labels.
        scale: of the last layer, relative to the standard deviation of the raw patch.
        spread: the root mean square of these standard deviations in the training, which decides the size of the
            gradient and nothing else; None if it was not measured.
    """

    intercept: float
    slope: float
    scale: float
    spread: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Follow:
    """An output channel that follows the raw volume.

    ``intercept + slope * level + scale * std(raw patch) * f(x)``, where the level is the mean of the raw patch, or the
    raw value of the voxel.

    Attributes:
        kind: ``patch`` or ``residual``.
        in_channel: the channel of the raw volume.
        line: None if it has to be measured.
    """

    kind: str
    in_channel: int
    line: Line | None = None

    @property
    def plain(self) -> dict[str, object]:
        """As a config has it."""
        numbers = {} if self.line is None else {k: v for k, v in asdict(self.line).items() if v is not None}
        return {"name": self.kind, **numbers, "in_channel": self.in_channel}

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it has to be measured for a training."""
        return self.line is not None and self.line.spread is not None


#: What is known of an output channel.
Term = Numbers | Follow
