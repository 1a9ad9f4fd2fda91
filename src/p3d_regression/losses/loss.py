"""One loss that a config may name, and everything that is known about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from p3d_regression.components.component import Component
from p3d_regression.components.parameters import Argument, parameters_of
from p3d_regression.interval import REAL_LINE, Interval

if TYPE_CHECKING:
    from torch import nn

    from p3d_regression.labels.floor import VoxelLoss

#: The loss of which a fix makes an example, for continuous labels.
PLAIN = "MSELoss"

#: From the arguments of a loss to a range.
IntervalOf = Callable[[Mapping[str, Any]], Interval]

#: The unit of an argument: that of a difference of two labels, of a label itself, of a squared difference.
Unit = Literal["difference", "label", "variance"]


@dataclass(frozen=True)
class Loss(Component):
    """A loss that a config may name.

    Attributes:
        name: as configs write it; case, spaces and underscores do not matter there.
        build: returns the module. Called with the config's arguments by keyword; its signature says which there are,
            its annotations which values they take. If ``per_voxel``, the module maps output and label, both of shape
            (N, C, D, H, W), to the loss of each voxel, of the same shape; the mean over the voxels that count is taken
            by this project. Else it returns that mean itself, a number, and cannot exclude voxels.
        summary: one line of use, for a table.
        per_voxel: see ``build``.
        variance: whether there are two output channels for each channel of the labels: first all means, then all
            variances, which the module is given as its third input.
        outputs: which values the module can be given as output; an interval, or a function of the arguments.
        labels: which labels make sense.
        aliases: other names for it.
        example: arguments for a table and for tests; needed where the constructor has arguments without default.
        hidden: arguments of the constructor that a config may not give -> why.
        compares: the output with continuous ``values``, voxel by voxel; with ``fractions`` or masks; or with
            ``classes``, whole numbers in labels without a channel axis, which pytorch-3dunet alone does.
        units: arguments of ``build`` in the units of the labels, hidden ones included -> which. Target scaling needs
            them: with labels of another size it takes the loss with arguments of that size.
        voxel_loss: from the arguments to the loss of one voxel as a function of numpy arrays, from which the smallest
            loss that an output of a given range can reach is computed; None if it is no function of the distance.
        applies: the function that the loss applies to the output before it compares it with the labels, by the name
            of that final activation, such as ``sigmoid``; a function of the arguments that returns it; None for none.
        instead: keys of a ``loss`` section for an output to which ``applies`` has been applied already, and
            ``final_activation`` where that is another one than ``applies``.

    Raises:
        ValueError: an argument, the aliases, the example or the units cannot be used.
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
    compares: Literal["values", "fractions", "classes"] = "values"
    units: Mapping[str, Unit] = field(default_factory=dict)
    voxel_loss: "Callable[[Mapping[str, Any]], VoxelLoss] | None" = None
    applies: str | Callable[[Mapping[str, Any]], str | None] | None = None
    instead: Mapping[str, Argument] = field(default_factory=dict)
    noun: ClassVar[str] = "loss"
    command: ClassVar[str] = "losses"

    def __post_init__(self) -> None:
        self._check()
        if taken := {"weight", "ignore_index"} & self.parameters.keys():
            raise ValueError(f"loss {self.name}: configs need the word {min(taken)} for something else")
        if unknown := self.units.keys() - parameters_of(self.build).keys():
            raise ValueError(f"loss {self.name}: units of {min(unknown)}, which is no argument of its constructor")

    def outputs_of(self, arguments: Mapping[str, Any]) -> Interval:
        """The values that it can be given as output (as mean, if there is a variance)."""
        return self.outputs if isinstance(self.outputs, Interval) else self.outputs(arguments)

    def labels_of(self, arguments: Mapping[str, Any]) -> Interval:
        """The labels that make sense."""
        return self.labels if isinstance(self.labels, Interval) else self.labels(arguments)

    def applied(self, arguments: Mapping[str, Any]) -> str | None:
        """The function that it applies to the output itself."""
        return self.applies(arguments) if callable(self.applies) else self.applies

    def standardised(self, arguments: Mapping[str, Any], mean: float, std: float) -> dict[str, Any]:
        """Arguments of the same loss of labels that were shifted by ``-mean`` and divided by ``std``."""
        of_unit: dict[Unit, Callable[[float], float]] = {
            "difference": lambda value: value / std,
            "label": lambda value: (value - mean) / std,
            "variance": lambda value: value / std**2,
        }
        found = dict(arguments)
        for name, unit in self.units.items():
            value = arguments.get(name, parameters_of(self.build)[name].default)
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[name] = of_unit[unit](value)
        return found

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
