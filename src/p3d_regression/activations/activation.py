"""One final activation that a config may name, and the arguments that it takes."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from p3d_regression.components.component import Component
from p3d_regression.components.parameters import Argument, Parameter, Scalar, with_arguments
from p3d_regression.fix import Fix, write
from p3d_regression.interval import Interval

if TYPE_CHECKING:
    from torch import nn

#: From the arguments of an activation, by name, and the number of channels that it acts on, to its range.
RangeOf = Callable[[Mapping[str, Any], int], Interval]


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
    noun: ClassVar[str] = "final activation"
    command: ClassVar[str] = "activations"
    name_key: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(
                f"{self.noun} {self.name!r}: a name consists of lower-case letters, digits and underscores"
            )
        self._check()
        for parameter in self.parameters.values():
            if not parameter.required and not _is_plain(parameter):
                why = f"its default {parameter.default!r}, which a checkpoint has to hold, is not {parameter.kind}"
                raise ValueError(f"{self.noun} {self.name}, argument {parameter.name}: {why}")

    def range_of(self, arguments: Mapping[str, Scalar], channels: int) -> Interval:
        """The values that each of ``channels`` channels can have."""
        found = self.range if isinstance(self.range, Interval) else self.range(arguments, channels)
        if not isinstance(found, Interval):
            raise TypeError(f"its range is {found!r}, not an Interval")
        return found

    def value(self, arguments: Mapping[str, Argument]) -> str | dict[str, Argument]:
        return with_arguments(self.name, arguments)

    def written(self, place: str, arguments: Mapping[str, Argument], given: Iterable[str]) -> Fix:
        return write(place, self.value(arguments))

    @property
    def properties(self) -> dict[str, Any]:
        """``range`` of the example as ``[low, high]``, with None for no bound, and as ``range_text``; they are None and
        ``unknown`` where a plugin is broken. ``over_channels``.
        """
        return {"range": None, "range_text": "unknown", "over_channels": self.over_channels}

    def row(self, origin: str, distribution: str | None) -> dict[str, Any]:
        row = super().row(origin, distribution)
        try:
            # some need a second channel
            interval = self.range_of(self.bind(self.example, self.name), 2)
        except Exception as error:
            # one plugin's mistake must not cost the table
            return row | {"use": f"broken: {error}".splitlines()[0]}
        bounds = [bound if math.isfinite(bound) else None for bound in (interval.low, interval.high)]
        return row | {"range": bounds, "range_text": str(interval)}


def _is_plain(parameter: Parameter) -> bool:
    """Whether a config could hold the default: a checkpoint does, and is read like a config."""
    try:
        return bool(parameter.convert(parameter.default) == parameter.default)
    except ValueError:
        return False
