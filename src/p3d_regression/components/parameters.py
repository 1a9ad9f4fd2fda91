"""The arguments of a constructor, and the values that a config may give them."""

import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

from p3d_regression.text import number_hint

Scalar = bool | int | float | str | None

#: What a config can hold as an argument.
Argument = Scalar | list[float]

#: Annotation in a constructor's signature -> what a config must hold.
_KINDS: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list of numbers",
    type(None): "null",
}


@dataclass(frozen=True)
class Parameter:
    """An argument that a config may give.

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

    def convert(self, value: object) -> Argument:
        """Return ``value`` as the constructor wants it.

        Raises:
            ValueError: it is of another type, not finite, or too large; the message says what is allowed.
        """
        kinds = self.kinds or (bool, int, float, str, type(None))
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
        if isinstance(value, list) and list in kinds and value and all(map(_is_number, value)):
            return [number if isinstance(number, int) else _finite(number) for number in value]
        raise ValueError(f"is not {self.kind}{number_hint(value)}")

    @property
    def row(self) -> dict[str, Any]:
        """``name``, ``kind``, ``required`` and ``default``, as YAML and JSON hold them."""
        default = list(self.default) if isinstance(self.default, tuple) else self.default
        row = {"name": self.name, "kind": self.kind, "required": self.required}
        return {**row, "default": None if self.required else default}


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _finite(value: SupportsFloat) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def parameters_of(build: Callable[..., Any]) -> dict[str, Parameter]:
    """The arguments that a constructor names, in its order; ``*args`` and ``**kwargs`` name none."""
    return {
        name: Parameter(name, _kinds(_annotation(parameter)), parameter.default)
        for name, parameter in _signature(build).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _signature(build: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(build, eval_str=True)
    except NameError:
        # annotations as texts that name something of "if TYPE_CHECKING:"
        return inspect.signature(build)


def _annotation(parameter: inspect.Parameter) -> object:
    """What a constructor says of an argument; if nothing, what its default says."""
    if parameter.annotation is parameter.empty and isinstance(parameter.default, bool | int | float | str):
        return int | float if type(parameter.default) is int else type(parameter.default)
    return parameter.annotation


def _kinds(annotation: object) -> tuple[type, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = [_plain(kind) for kind in (typing.get_args(annotation) if union else (annotation,))]
    return tuple(kinds) if all(kind in _KINDS for kind in kinds) else ()


def _plain(annotation: Any) -> Any:
    """Of several numbers, as ``tuple[float, float]``, the list that a config holds for them; of some words, text."""
    if typing.get_origin(annotation) is typing.Literal and all(isinstance(w, str) for w in typing.get_args(annotation)):
        return str
    several = typing.get_origin(annotation) in (tuple, list, Sequence)
    return list if several and set(typing.get_args(annotation)) <= {int, float, ...} else annotation


def with_arguments(name: str, arguments: Mapping[str, Argument]) -> str | dict[str, Argument]:
    """A component as a config says it: a mapping if there are arguments, else the name."""
    return {"name": name, **arguments} if arguments else name
