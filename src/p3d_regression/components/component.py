"""What a config may name, with arguments: an activation, a loss, a metric."""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

from p3d_regression.components.parameters import Argument, Parameter, parameters_of
from p3d_regression.errors import ConfigError
from p3d_regression.fix import NO_FIX, Fix, delete, write
from p3d_regression.text import number_in, short

C = TypeVar("C", bound="Component")


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
        command: of ``p3d-regression``, which lists all of its kind.
        name_key: the key of its name, below the place that names it; empty where the place may hold the name itself.
    """

    name: str
    build: Callable[..., Any]
    summary: str
    aliases: tuple[str, ...]
    example: Mapping[str, Any]
    hidden: Mapping[str, str]
    noun: ClassVar[str]
    command: ClassVar[str]
    name_key: ClassVar[str] = ".name"

    def _check(self) -> None:
        """Refuse what no config could use.

        Raises:
            ValueError: an argument, the aliases or the example cannot be used.
        """
        if "name" in self.parameters:
            raise ValueError(f"{self.noun} {self.name}: an argument cannot be called name, a key of configs")
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
        """Return every argument of the constructor that a config may give, those it omits at their defaults.

        Args:
            given: the arguments in the config.
            place: where they stand, such as ``model.final_activation``.

        Raises:
            ConfigError: an argument is unknown, missing, or of another type.
        """
        parameters = self.parameters
        for name in given:
            if name not in parameters:
                raise self._refusal(f"{place}.{short(name)}", self._unknown(str(name)), place, given)
        missing = [name for name, p in parameters.items() if p.required and name not in given]
        if missing:
            raise self._refusal(place, f"{self.name} lacks the argument {' and '.join(missing)}.", place, given)
        bound: dict[str, Any] = {}
        for name, parameter in parameters.items():
            try:
                bound[name] = parameter.convert(given[name]) if name in given else parameter.default
            except ValueError as error:
                why = f"{reprlib.repr(given[name])} {error}."
                raise self._refusal(f"{place}.{name}", why, place, given) from None
        return bound

    def _refusal(self, key: str, why: str, place: str, given: Mapping[str, object]) -> ConfigError:
        return ConfigError(key, f"{why} {self.usage}", self.correction(place, given))

    def _unknown(self, name: str) -> str:
        if name in self.hidden:
            return f"{self.name} does not accept this argument here: {self.hidden[name]}."
        nearest = get_close_matches(name[:100], list(self.parameters), n=1)
        return f"{self.name} has no such argument" + (f", did you mean {nearest[0]}?" if nearest else ".")

    def given(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Of all arguments those that are not at their defaults."""
        parameters = self.parameters
        return {name: value for name, value in arguments.items() if value != parameters[name].default}

    @property
    def usage(self) -> str:
        """The sentence that names its arguments."""
        takes = ", ".join(
            f"{p.name} ({p.kind}, {'required' if p.required else f'default {p.default}'})"
            for p in self.parameters.values()
        )
        return f"It takes {takes}." if takes else f"{self.name} takes no arguments."

    def correction(self, place: str, given: Mapping[str, object]) -> Fix:
        """Name this component in a config, with the arguments there :meth:`as_far_as_usable`.

        Args:
            place: where it is named, such as ``loss.channels[1]``.
            given: the arguments there; what cannot be used is deleted.
        """
        return self.written(place, self.as_far_as_usable(given), given)

    def as_far_as_usable(self, given: Mapping[str, object]) -> dict[str, Argument]:
        """The arguments in a config, with misspelled names and numbers in quotes corrected.

        A value that cannot be used is replaced by an example or the default, an unknown argument is missing.
        """
        usable: dict[str, Argument] = {name: v for name, v in self.example.items() if self.parameters[name].required}
        # what is spelled right comes last, and counts
        for written in sorted(given, key=lambda name: name in self.parameters):
            nearest = get_close_matches(str(written)[:100].lower(), list(self.parameters), n=1)
            name = written if written in self.parameters else next(iter(nearest), "")
            if not name:
                continue
            others = (number_in(given[written]), self.example.get(name), self.parameters[name].default)
            for value in (given[written], *(other for other in others if other is not None)):
                with suppress(ValueError):
                    usable[name] = self.parameters[name].convert(value)
                    break
        return {name: usable[name] for name in self.parameters if name in usable}

    def value(self, arguments: Mapping[str, Argument]) -> str | dict[str, Argument]:
        """What a config says to name it with these arguments."""
        return {"name": self.name, **arguments}

    def written(self, place: str, arguments: Mapping[str, Argument], given: Iterable[str]) -> Fix:
        """Name it with these arguments in a section of a config, which may hold other keys as well.

        Args:
            place: the section.
            arguments: to write.
            given: names of the arguments there; the others of them are deleted.
        """
        lines = [write(f"{place}.{key}", value) for key, value in {"name": self.name, **arguments}.items()]
        return sum(lines, NO_FIX) + delete(*(f"{place}.{key}" for key in given if key not in arguments))

    def row(self, origin: str, distribution: str | None) -> dict[str, Any]:
        """Its row in the tables that the command line prints, as plain data.

        Args:
            origin: ``plugin``, or the part of this project that it comes from.
            distribution: of a plugin.

        Returns:
            ``name``; ``aliases``; ``example``, a valid value or section of a config; ``arguments``, each with ``name``,
            ``kind``, ``required`` and ``default``; the :attr:`properties` of its kind; ``origin``; ``distribution``;
            ``use`` in one line.
        """
        return {
            "name": self.name,
            "aliases": list(self.aliases),
            "example": self.value(self.example),
            "arguments": [parameter.row for parameter in self.parameters.values()],
            **self.properties,
            "origin": origin,
            "distribution": distribution,
            "use": self.summary,
        }

    @property
    def properties(self) -> dict[str, Any]:
        """What a row says about components of this kind alone."""
        raise NotImplementedError


@dataclass(frozen=True)
class Refused:
    """A name that one could expect to work, and why it does not."""

    name: str
    reason: str
