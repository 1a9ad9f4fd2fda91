"""What a config may name, with arguments: an activation, a loss, a metric."""

import reprlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from p3d_regression.components.parameters import Argument, Parameter, parameters_of, with_arguments
from p3d_regression.errors import ConfigError
from p3d_regression.text import short


class Component:
    """What activations, losses and metrics have in common: a name, a constructor, its arguments.

    Attributes:
        name: as configs write it.
        build: called with the config's arguments by keyword; its signature says which there are, its annotations
            which values they take.
        summary: one line of use, for a table.
        aliases: other names for it.
        example: arguments for a table and for tests; needed where the constructor has arguments without default.
        hidden: arguments of the constructor that a config may not give -> why.
        noun: what it is, in an error message.
    """

    name: str
    build: Callable[..., Any]
    summary: str
    aliases: tuple[str, ...]
    example: Mapping[str, Any]
    hidden: Mapping[str, str]
    noun: ClassVar[str]

    def _check(self) -> None:
        """Refuse what cannot be offered to configs.

        Raises:
            ValueError: an argument, the aliases or the example cannot be used.
        """
        if "name" in self.parameters:
            raise ValueError(f"{self.noun} {self.name}: an argument cannot be called name, configs need that word")
        if isinstance(self.aliases, str):
            raise ValueError(f"{self.noun} {self.name}: aliases are a tuple of names, not the text {self.aliases!r}")
        missing = [p.name for p in self.parameters.values() if p.required and p.name not in self.example]
        if missing:
            raise ValueError(f"{self.noun} {self.name}: its example lacks {', '.join(missing)}")

    @property
    def names(self) -> list[str]:
        """All names that a config may use."""
        return [self.name, *self.aliases]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The arguments that a config may give, by name."""
        return {name: p for name, p in parameters_of(self.build).items() if name not in self.hidden}

    def bind(self, given: Mapping[str, object], place: str) -> dict[str, Any]:
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
                raise ConfigError(f"{place}.{short(name)}: {self._unknown(str(name))} {self.usage(given)}")
        missing = [name for name, p in parameters.items() if p.required and name not in given]
        if missing:
            raise ConfigError(f"{place}: {self.name} lacks the argument {' and '.join(missing)}. {self.usage(given)}")
        bound: dict[str, Any] = {}
        for name, parameter in parameters.items():
            if name not in given:
                bound[name] = parameter.default
                continue
            try:
                bound[name] = parameter.convert(given[name])
            except ValueError as error:
                message = f"{place}.{name}: {reprlib.repr(given[name])} {error}. {self.usage(given)}"
                raise ConfigError(message) from None
        return bound

    def short(self, arguments: Mapping[str, Any]) -> str | dict[str, Argument]:
        """As a config says it, without the arguments that are at their defaults."""
        parameters = self.parameters
        given = {name: value for name, value in arguments.items() if value != parameters[name].default}
        return with_arguments(self.name, given)

    def _unknown(self, name: str) -> str:
        if name in self.hidden:
            return f"{self.name} cannot be given this argument here: {self.hidden[name]}."
        nearest = get_close_matches(name[:100], list(self.parameters), n=1)
        return f"{self.name} has no such argument" + (f", did you mean {nearest[0]}?" if nearest else ".")

    def usage(self, given: Mapping[str, object] | None = None) -> str:
        """Which arguments it takes, and lines of a config that work: the end of an error message.

        Args:
            given: what the config says; what makes sense of it is kept in these lines.
        """
        if not self.parameters:
            return f"{self.name} takes no arguments. Write:\n{self.lines({})}"
        takes = ", ".join(
            f"{p.name} ({p.kind}, {'required' if p.required else f'default {p.default}'})"
            for p in self.parameters.values()
        )
        defaults = {p.name: p.default for p in self.parameters.values() if not p.required}
        required = {name: value for name, value in self.example.items() if self.parameters[name].required}
        kept = required | self._sensible(given or {})
        return f"It takes {takes}. Example:\n{self.lines(kept or self.example or defaults)}"

    def _sensible(self, given: Mapping[str, object]) -> dict[str, Argument]:
        """Of the arguments in a config those that can be used, misspelled names and numbers in quotes mended."""
        kept: dict[str, Argument] = {}
        for written, value in given.items():
            nearest = get_close_matches(str(written)[:100].lower(), list(self.parameters), n=1)
            name = written if written in self.parameters else nearest[0] if nearest else None
            for candidate in (value, _as_number(value)):
                with suppress(ValueError):
                    if name is not None and candidate != self.parameters[name].default:
                        kept[name] = self.parameters[name].convert(candidate)
                        break
        return kept

    def lines(self, arguments: Mapping[str, Argument]) -> str:
        """The part of a config that names it with these arguments."""
        raise NotImplementedError


def _as_number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@dataclass(frozen=True)
class Refused:
    """A name that one could expect to work, and why it does not."""

    name: str
    reason: str
