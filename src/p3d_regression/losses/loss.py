"""One loss that a config may name, and what it asks of outputs and labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from p3d_regression.components.component import Component
from p3d_regression.components.parameters import Argument
from p3d_regression.interval import REAL_LINE, Interval

if TYPE_CHECKING:
    from torch import nn

#: From the arguments of a loss to a range.
IntervalOf = Callable[[Mapping[str, Any]], Interval]


@dataclass(frozen=True)
class Loss(Component):
    """A loss that a config may name.

    Attributes:
        name: as configs write it; case and underscores do not matter there.
        build: returns the module. Called with the config's arguments by keyword; its signature says which there are,
            its annotations which values they take. If ``per_voxel``, the module maps output and label, both of shape
            (N, C, D, H, W), to the loss of each voxel, of the same shape; the mean over the voxels that count is taken
            by this project. Else it returns that mean itself, a number, and cannot leave voxels out.
        summary: one line of use, for a table.
        per_voxel: see ``build``.
        variance: whether there are two output channels for each channel of the labels: first all means, then all
            variances, which the module is given as its third input.
        outputs: which values the module can be given as output; an interval, or a function of the arguments.
        labels: which labels make sense.
        aliases: other names for it.
        example: arguments for a table and for tests; needed where the constructor has arguments without default.
        hidden: arguments of the constructor that a config may not give -> why.

    Raises:
        ValueError: an argument, the aliases or the example cannot be used.
    """

    name: str
    build: "Callable[..., nn.Module]"
    summary: str
    per_voxel: bool = True
    variance: bool = False
    outputs: Interval | IntervalOf = REAL_LINE
    labels: Interval | IntervalOf = REAL_LINE
    aliases: tuple[str, ...] = ()
    example: Mapping[str, Argument] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)
    noun: ClassVar[str] = "loss"
    command: ClassVar[str] = "losses"

    def __post_init__(self) -> None:
        self._check()
        if taken := {"weight", "ignore_index"} & self.parameters.keys():
            raise ValueError(f"loss {self.name}: configs need the word {min(taken)} for something else")

    def outputs_of(self, arguments: Mapping[str, Any]) -> Interval:
        """The values that it can be given as output (as mean, if there is a variance)."""
        return self.outputs if isinstance(self.outputs, Interval) else self.outputs(arguments)

    def labels_of(self, arguments: Mapping[str, Any]) -> Interval:
        """The labels that make sense."""
        return self.labels if isinstance(self.labels, Interval) else self.labels(arguments)

    @property
    def properties(self) -> dict[str, Any]:
        """``outputs`` and ``labels``, the ranges that it is for, as text; ``ignores``, whether voxels can be masked;
        ``output_channels`` for each channel of the labels.
        """
        arguments = {name: p.default for name, p in self.parameters.items()} | dict(self.example)
        return {
            "outputs": _in_words(self.outputs_of, arguments) + (" and a variance" if self.variance else ""),
            "labels": _in_words(self.labels_of, arguments),
            "ignores": self.per_voxel,
            "output_channels": 2 if self.variance else 1,
        }


def _in_words(range_of: IntervalOf, arguments: Mapping[str, Any]) -> str:
    try:
        found = range_of(arguments)
    except Exception:
        # one plugin's mistake must not cost the table
        return "unknown"
    return str(found) if isinstance(found, Interval) else "unknown"
