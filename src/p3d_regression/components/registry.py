"""Names, and the components that are registered under them."""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Generic

from p3d_regression import plugins
from p3d_regression.components.component import C, Refused
from p3d_regression.components.configured import Configured
from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, advise
from p3d_regression.text import fold

#: Where components come from that no plugin has registered.
BUILT_IN = "built-in"
TORCH_NN = "torch.nn"
TORCHMETRICS = "torchmetrics"
UPSTREAM = "pytorch3dunet"


@dataclass(frozen=True)
class Registration(Generic[C]):
    """A component, or the reason against one, and who has registered it."""

    what: C | Refused
    plugin: plugins.Plugin

    @property
    def origin(self) -> str:
        """The distribution of a plugin, or the name of the part of this project that it comes from."""
        return self.plugin.distribution or self.plugin.name

    @property
    def component(self) -> C:
        assert not isinstance(self.what, Refused)
        return self.what

    @property
    def row(self) -> dict[str, Any]:
        """See :meth:`Component.row`."""
        distribution = self.plugin.distribution
        return self.component.row("plugin" if distribution else self.origin, distribution)


@dataclass(frozen=True)
class Family(Generic[C]):
    """One kind of components, and how messages speak of it.

    Attributes:
        cls: of the components.
        hook: through which plugins register them.
        example: name of a component that always works.
        fallback: what to say about a name that is close to no other.
        synonyms: names from elsewhere, folded -> the component to suggest.
    """

    cls: type[C]
    hook: str
    example: str
    fallback: str
    synonyms: Mapping[str, str] = field(default_factory=dict)


class Registry(Generic[C]):
    """All components of a family that a config may name.

    Args:
        family: which.
        own: the project's own, by their origin; of two with one name the first counts.
        installed: plugins, which may add others.
    """

    def __init__(self, family: Family[C], own: Mapping[str, Iterable[C | Refused]], installed: plugins.Plugins) -> None:
        self.family = family
        self.plugins = installed
        self._registrations: dict[str, list[Registration[C]]] = {}
        for origin, components in own.items():
            self._add(plugins.Plugin(origin, None), components)
        for plugin, components in installed.contributions(family.hook):
            self._add(plugin, components)

    def _add(self, plugin: plugins.Plugin, components: Iterable[object]) -> None:
        components = list(components)
        cls = self.family.cls
        wrong = [component for component in components if not isinstance(component, cls | Refused)]
        if wrong:
            article = "an" if cls.__name__[0] in "AEIOU" else "a"
            plugin.fail(TypeError(f"{self.family.hook} returned {wrong[0]!r}, which is not {article} {cls.__name__}"))
            return
        for what in components:
            assert isinstance(what, cls | Refused)
            if isinstance(what, cls):
                plugin.detail = ", ".join(filter(None, [plugin.detail, what.name]))
            for name in {fold(name) for name in ([what.name] if isinstance(what, Refused) else what.names)}:
                registrations = self._registrations.setdefault(name, [])
                # the project's own come first: a torch that grows a component of the same name changes nothing
                if plugin.distribution or not registrations:
                    registrations.append(Registration(what, plugin))

    def registrations(self) -> list[Registration[C]]:
        """Every component that can be used, once."""
        single = [found[0] for found in self._registrations.values() if len(found) == 1]
        return list({id(found.what): found for found in single if not isinstance(found.what, Refused)}.values())

    def rows(self) -> list[dict[str, Any]]:
        """What the command line prints about each: see :meth:`Component.row`."""
        return [registration.row for registration in self.registrations()]

    def contested(self) -> dict[str, list[str]]:
        """Names that more than one distribution claims -> these."""
        return {name: [each.origin for each in found] for name, found in self._registrations.items() if len(found) > 1}

    def get(self, name: str, place: str) -> Registration[C] | None:
        """What a name stands for; None if it stands for nothing that can be used.

        Raises:
            ConfigError: two distributions claim the name.
        """
        found = self._registrations.get(fold(name), [])
        usable = found and (len(found) > 1 or not isinstance(found[0].what, Refused))
        return self._find(name, {}, place) if usable else None

    def configured(self, name: str, arguments: Mapping[str, object], place: str) -> Configured[C]:
        """Return the component that a config names, with all its arguments.

        Args:
            name: as written.
            arguments: as written.
            place: where the config names it, such as ``loss.channels[1]``.

        Raises:
            ConfigError: there is none, it cannot be used, two distributions claim the name, or an argument is wrong.
        """
        found = self._find(name, arguments, place)
        return Configured(found.component, found.component.bind(arguments, place), place, found.plugin.distribution)

    def example(self, place: str, arguments: Mapping[str, object]) -> Fix:
        """Name a component that works, with the arguments that it shares with what a config says now."""
        return self._registrations[fold(self.family.example)][0].component.correction(place, arguments)

    def _find(self, name: str, arguments: Mapping[str, object], place: str) -> Registration[C]:
        found = self._registrations.get(fold(name), [])
        key, written = f"{place}{self.family.cls.name_key}", reprlib.repr(name)
        if not found:
            raise ConfigError(key, *self._unknown(name, arguments, place))
        if len(found) > 1:
            claims = " and ".join(registration.origin for registration in found)
            fix = advise(f"uninstall one of them, or exclude it with {plugins.BLOCK}=NAME")
            raise ConfigError(key, f"{written} is registered by {claims}.", fix)
        if isinstance(found[0].what, Refused):
            message = f"{written} cannot be a {self.family.cls.noun}: {found[0].what.reason}."
            raise ConfigError(key, f"{message} {self._names}", self.example(place, arguments))
        return found[0]

    def _unknown(self, name: str, arguments: Mapping[str, object], place: str) -> tuple[str, Fix]:
        """Message and fix for a name that nobody has registered."""
        path, _, inside = name.partition("(")
        # softplus(beta=2), and torch.nn.Softplus
        pairs = (argument.partition("=") for argument in inside.rstrip(") ").split(","))
        given = {**arguments, **{key.strip(): value.strip(" '\"") for key, equals, value in pairs if equals}}
        near = self._nearest(path.rpartition(".")[2])
        message = f"{reprlib.repr(name)} is not a known {self.family.cls.noun}"
        message += f"; did you mean {near[0]}?" if near else f". {self.family.fallback}"
        if inside:
            message += " Arguments are written in a mapping."
        elif "." in path:
            message += " A name is not an import path: a config cannot import code."
        if unloaded := [f"{plugin} ({plugin.state}: {plugin.detail})" for plugin in self.plugins.not_loaded()]:
            message += f" It may belong to a plugin that is not loaded: {'; '.join(unloaded)}."
        if near:
            message += f" `p3d-regression {self.family.cls.command}` lists all names."
            return message, near[1].correction(place, given)
        return f"{message} {self._names}", self.example(place, given)

    def _nearest(self, name: str) -> tuple[str, C] | None:
        """The name to suggest in place of an unknown one, and its component."""
        known = {fold(name): (name, each.component) for each in self.registrations() for name in each.component.names}
        folded = fold(name[:100])
        nearest = get_close_matches(fold(self.family.synonyms.get(folded, folded)), list(known), n=1, cutoff=0.7)
        return known[nearest[0]] if nearest else None

    @property
    def _names(self) -> str:
        names = sorted(name for each in self.registrations() for name in each.component.names)
        return f"Allowed: {', '.join(names)} (see `p3d-regression {self.family.cls.command}`)."
