"""One final activation that a config may name, and the arguments that it takes."""

import inspect
import math
import numbers
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, SupportsFloat

from p3d_regression.activations.ranges import Interval, RangeOf
from p3d_regression.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

Scalar = bool | int | float | str | None

#: Annotation in a constructor's signature -> what a config must hold.
_KINDS: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}


@dataclass(frozen=True)
class Parameter:
    """An argument that a config may give to an activation.

    Attributes:
        name: as in the constructor.
        kinds: types of which its value must be one; empty if the constructor says nothing about it.
        default: the constructor's; ``inspect.Parameter.empty`` if the argument must be given.
    """

    name: str
    kinds: tuple[type, ...]
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def kind(self) -> str:
        """What is allowed, in words."""
        return " or ".join(_KINDS[kind] for kind in self.kinds or (float, bool, str))

    def convert(self, value: object) -> Scalar:
        """Return ``value`` as the constructor wants it.

        Raises:
            ValueError: it is of another type, not finite, or too large; the message says what is allowed.
        """
        kinds = self.kinds or tuple(_KINDS)  # type: ignore[arg-type]
        if value is None and type(None) in kinds:
            return None
        if isinstance(value, bool) and bool in kinds:
            return value
        if isinstance(value, str) and str in kinds:
            return value
        if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int in kinds:
            return int(value)
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and float in kinds:
            return _finite(value)
        raise ValueError(f"is not {self.kind}{_hint(value)}")


def _finite(value: SupportsFloat) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def _hint(value: object) -> str:
    """For a number that is none in YAML, such as ``1e-3`` and ``"2"``."""
    if isinstance(value, str):
        try:
            return f" (YAML reads it as a text; write {as_yaml(_finite(float(value)))})"
        except ValueError:
            pass
    return ""


@dataclass(frozen=True)
class Activation:
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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"activation {self.name!r}: a name is lower case, with digits and underscores")
        if "name" in self.parameters:
            raise ValueError(f"activation {self.name}: an argument cannot be called name, configs need that word")
        if isinstance(self.aliases, str):
            raise ValueError(f"activation {self.name}: aliases are a tuple of names, not the text {self.aliases!r}")
        for parameter in self.parameters.values():
            if not parameter.required and not _is_kept(parameter):
                kept = f"its default {parameter.default!r}, which a checkpoint has to keep, is not {parameter.kind}"
                raise ValueError(f"activation {self.name}, argument {parameter.name}: {kept}")
        missing = [p.name for p in self.parameters.values() if p.required and p.name not in self.example]
        if missing:
            raise ValueError(f"activation {self.name}: its example lacks {', '.join(missing)}")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The arguments that a config may give, by name."""
        return {name: p for name, p in parameters_of(self.build).items() if name not in self.hidden}

    def bind(self, given: Mapping[str, object], place: str) -> dict[str, Scalar]:
        """Return every argument of the constructor that a config may give, those left out at their defaults.

        Args:
            given: what the config says.
            place: where it says so, such as ``model.final_activation``.

        Raises:
            ConfigError: an argument is unknown, missing, or of another type.
        """
        parameters = self.parameters
        for name in given:
            if name not in parameters:
                raise ConfigError(f"{place}.{_short(name)}: {self._unknown(str(name))} {self.usage()}")
        missing = [name for name, p in parameters.items() if p.required and name not in given]
        if missing:
            raise ConfigError(f"{place}: {self.name} lacks the argument {' and '.join(missing)}. {self.usage()}")
        bound: dict[str, Scalar] = {}
        for name, parameter in parameters.items():
            if name not in given:
                bound[name] = parameter.default
                continue
            try:
                bound[name] = parameter.convert(given[name])
            except ValueError as error:
                message = f"{place}.{name}: {reprlib.repr(given[name])} {error}. {self.usage()}"
                raise ConfigError(message) from None
        return bound

    def range_of(self, arguments: Mapping[str, Scalar], channels: int) -> Interval:
        """The values that each of ``channels`` channels can have."""
        found = self.range if isinstance(self.range, Interval) else self.range(arguments, channels)
        if not isinstance(found, Interval):
            raise TypeError(f"its range is {found!r}, not an Interval")
        return found

    def _unknown(self, name: str) -> str:
        if name in self.hidden:
            return f"{self.name} cannot be given this argument here: {self.hidden[name]}."
        nearest = get_close_matches(name[:100], list(self.parameters), n=1)
        return f"{self.name} has no such argument" + (f", did you mean {nearest[0]}?" if nearest else ".")

    def usage(self) -> str:
        """Which arguments it takes, and a line of a config that works: the end of an error message."""
        if not self.parameters:
            return f"{self.name} takes no arguments. Write:\n  model:\n    final_activation: {self.name}"
        takes = ", ".join(
            f"{p.name} ({p.kind}, {'required' if p.required else f'default {p.default}'})"
            for p in self.parameters.values()
        )
        example = with_arguments(self.name, self.example or {p.name: p.default for p in self.parameters.values()})
        return f"It takes {takes}. Example:\n  model:\n    final_activation: {as_yaml(example)}"


@dataclass(frozen=True)
class Refused:
    """A name that one could expect to work, and why it cannot be a final activation."""

    name: str
    reason: str


def _is_kept(parameter: Parameter) -> bool:
    """Whether a default is what a config could have said: a checkpoint holds it, and is read like a config."""
    try:
        return bool(parameter.convert(parameter.default) == parameter.default)
    except ValueError:
        return False


def parameters_of(build: "Callable[..., nn.Module]") -> dict[str, Parameter]:
    """The arguments that a constructor names, in its order; ``*args`` and ``**kwargs`` name none."""
    return {
        name: Parameter(name, _kinds(parameter.annotation), parameter.default)
        for name, parameter in _signature(build).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _signature(build: "Callable[..., nn.Module]") -> inspect.Signature:
    try:
        return inspect.signature(build, eval_str=True)
    except NameError:
        # annotations as texts that name something of "if TYPE_CHECKING:"
        return inspect.signature(build)


def _kinds(annotation: object) -> tuple[type, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = typing.get_args(annotation) if union else (annotation,)
    return tuple(kinds) if all(kind in _KINDS for kind in kinds) else ()


def with_arguments(name: str, arguments: Mapping[str, Scalar]) -> str | dict[str, Scalar]:
    """An activation as a config says it: a mapping if there are arguments, else the name."""
    return {"name": name, **arguments} if arguments else name


def as_yaml(value: object) -> str:
    """Plain data in one line of YAML, ready to be pasted into a config."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def _short(name: object) -> str:
    return reprlib.repr(name) if not isinstance(name, str) or len(name) > 40 else name
