"""One final activation that a config may name, and the arguments that it takes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from p3d_regression.activations.ranges import RangeOf
from p3d_regression.components.component import Component
from p3d_regression.components.parameters import Argument, Parameter, Scalar, with_arguments
from p3d_regression.interval import Interval
from p3d_regression.text import as_yaml

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Activation(Component):
    """A final activation that a config may name.

    Attributes:
        name: as configs write it, in lower case with underscores.
        build: returns the module. Called with the config's arguments by keyword; its signature says which
            there are, its annotations which values they take (``float``, ``int``, ``bool``, ``str``). The module
            maps a tensor of shape (N, C, D, H, W) or (N, C, H, W) to one of the same shape, and holds neither
            parameters nor buffers.
        range: the values it can produce: an interval, or a function that returns it, of the arguments (a
            mapping) and the number of channels that the activation acts on.
        summary: one line of use, for a table.
        over_channels: whether a voxel's channels depend on each other, as in softmax. It needs two or more.
        aliases: other names for it.
        example: arguments for a table and for tests; needed where the constructor has arguments without default.
        hidden: arguments of the constructor that a config may not give -> why.

    Raises:
        ValueError: the name, a default or the example cannot be used.
    """

    name: str
    build: "Callable[..., nn.Module]"
    range: Interval | RangeOf
    summary: str
    over_channels: bool = False
    aliases: tuple[str, ...] = ()
    example: Mapping[str, Scalar] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)
    noun: ClassVar[str] = "activation"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"activation {self.name!r}: a name is lower case, with digits and underscores")
        self._check()
        for parameter in self.parameters.values():
            if not parameter.required and not _is_kept(parameter):
                kept = f"its default {parameter.default!r}, which a checkpoint has to keep, is not {parameter.kind}"
                raise ValueError(f"activation {self.name}, argument {parameter.name}: {kept}")

    def range_of(self, arguments: Mapping[str, Scalar], channels: int) -> Interval:
        """The values that each of ``channels`` channels can have."""
        found = self.range if isinstance(self.range, Interval) else self.range(arguments, channels)
        if not isinstance(found, Interval):
            raise TypeError(f"its range is {found!r}, not an Interval")
        return found

    def lines(self, arguments: Mapping[str, Argument]) -> str:
        return f"  model:\n    final_activation: {as_yaml(with_arguments(self.name, arguments))}"


def _is_kept(parameter: Parameter) -> bool:
    """Whether a default is what a config could have said: a checkpoint holds it, and is read like a config."""
    try:
        return bool(parameter.convert(parameter.default) == parameter.default)
    except ValueError:
        return False
