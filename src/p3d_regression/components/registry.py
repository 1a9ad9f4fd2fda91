"""Names, and who offers what under them."""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Generic, NoReturn, TypeVar

from p3d_regression import plugins
from p3d_regression.components.component import Component, Refused
from p3d_regression.errors import ConfigError
from p3d_regression.text import fold

C = TypeVar("C", bound=Component)

#: Where components come from that no plugin has registered.
BUILT_IN = "built-in"
TORCH_NN = "torch.nn"
TORCHMETRICS = "torchmetrics"
UPSTREAM = "pytorch3dunet"


@dataclass(frozen=True)
class Offer(Generic[C]):
    """What somebody has registered under a name."""

    what: C | Refused
    plugin: plugins.Plugin

    @property
    def origin(self) -> str:
        """The distribution of a plugin, or the name of the part of this project that it comes from."""
        return self.plugin.distribution or self.plugin.name

    @property
    def component(self) -> C:
        assert isinstance(self.what, Component)
        return self.what


@dataclass(frozen=True)
class Family(Generic[C]):
    """One kind of components, and how messages speak of it.

    Attributes:
        cls: of the components.
        hook: through which plugins, and the project itself, offer them.
        noun: with its article.
        command: that lists them.
        example: lines of a config that work.
        hint: for a name that nobody offers; None for the nearest one that is offered.
        fallback: what to say if no name is near.
    """

    cls: type[C]
    hook: str
    noun: str
    command: str
    example: str
    hint: Callable[[str], str | None] = lambda name: None
    fallback: str = ""


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
        self._offers: dict[str, list[Offer[C]]] = {}
        for origin, components in own.items():
            self._add(plugins.Plugin(origin, None), components)
        for plugin, components in installed.contributions(family.hook):
            self._add(plugin, components)

    def _add(self, plugin: plugins.Plugin, components: Iterable[object]) -> None:
        offered = list(components)
        cls = self.family.cls
        wrong = [offer for offer in offered if not isinstance(offer, cls | Refused)]
        if wrong:
            article = "an" if cls.__name__[0] in "AEIOU" else "a"
            plugin.fail(TypeError(f"{self.family.hook} returned {wrong[0]!r}, which is not {article} {cls.__name__}"))
            return
        for what in offered:
            assert isinstance(what, cls | Refused)
            if isinstance(what, cls):
                plugin.detail = ", ".join(filter(None, [plugin.detail, what.name]))
            for name in {fold(name) for name in ([what.name] if isinstance(what, Refused) else what.names)}:
                offers = self._offers.setdefault(name, [])
                # the project's own come first: a torch that grows a component of the same name changes nothing
                if plugin.distribution or not offers:
                    offers.append(Offer(what, plugin))

    def offers(self) -> list[Offer[C]]:
        """Every component that can be used, once."""
        single = [offers[0] for offers in self._offers.values() if len(offers) == 1]
        usable = [offer for offer in single if isinstance(offer.what, Component)]
        return list({id(offer.what): offer for offer in usable}.values())

    def contested(self) -> dict[str, list[str]]:
        """Names that more than one distribution claims -> these."""
        return {n: [offer.origin for offer in offers] for n, offers in self._offers.items() if len(offers) > 1}

    def get(self, name: str, place: str) -> Offer[C] | None:
        """What a name stands for; None if it stands for nothing that can be used.

        Raises:
            ConfigError: two distributions claim the name.
        """
        offers = self._offers.get(fold(name), [])
        usable = offers and (len(offers) > 1 or isinstance(offers[0].what, Component))
        return self.find(name, place) if usable else None

    def find(self, name: str, place: str) -> Offer[C]:
        """Return what a config names.

        Raises:
            ConfigError: there is none, it cannot be used, or two distributions claim the name.
        """
        offers = self._offers.get(fold(name), [])
        known, noun = self.family.noun.partition(" ")[2], self.family.noun
        if not offers:
            hint, example = self._hint(name)
            self._refuse(name, place, f"is not a known {known}; {hint}{self._left_out()}", example)
        if len(offers) > 1:
            claims = " and ".join(offer.origin for offer in offers)
            self._refuse(
                name, place, f"is claimed by {claims}; uninstall one, or leave it out with {plugins.BLOCK}=NAME."
            )
        if isinstance(offers[0].what, Refused):
            self._refuse(name, place, f"cannot be {noun}: {offers[0].what.reason}.")
        return offers[0]

    def _hint(self, name: str) -> tuple[str, str]:
        """What to say of a name that nobody offers, and an example."""
        if said := self.family.hint(name):
            return said, self.family.example
        components = {
            fold(known): (known, offer.component) for offer in self.offers() for known in offer.component.names
        }
        nearest = get_close_matches(fold(name), list(components), n=1, cutoff=0.7)
        known, component = components[nearest[0]] if nearest else ("", None)
        example = f"Example:\n{component.lines(component.example)}" if component else self.family.example
        if "." in name:
            return "a name is not a path: nothing is imported because a config says so.", example
        return f"did you mean {known}?" if component else self.family.fallback, example

    def names(self) -> list[str]:
        """All names that a config may use."""
        return [name for offer in self.offers() for name in offer.component.names]

    def _left_out(self) -> str:
        left_out = [f"{plugin} ({plugin.state}: {plugin.detail})" for plugin in self.plugins.left_out()]
        return f" It may be of a plugin that is left out: {'; '.join(left_out)}." if left_out else ""

    def _refuse(self, name: str, place: str, why: str, example: str | None = None) -> NoReturn:
        allowed = f"Allowed: {', '.join(sorted(self.names()))} (see `p3d-regression {self.family.command}`)."
        raise ConfigError(f"{place}: {reprlib.repr(name)} {why} {allowed} {example or self.family.example}")
