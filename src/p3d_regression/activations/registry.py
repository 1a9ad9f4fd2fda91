"""All final activations that a config may name: the project's own, those of ``torch.nn``, those of plugins."""

import reprlib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from threading import RLock
from typing import NoReturn

from p3d_regression import plugins
from p3d_regression.activations import builtin, torch_nn
from p3d_regression.activations.activation import Activation, Refused
from p3d_regression.activations.final import Entry, FinalActivation
from p3d_regression.activations.spec import EXAMPLE, KEY, Spec, Term, fold, parse
from p3d_regression.errors import ConfigError

BUILT_IN = "built-in"
TORCH_NN = "torch.nn"

# a cache alone would let two threads make two
_lock = RLock()


@dataclass(frozen=True)
class Offer:
    """What somebody has registered under a name."""

    what: Activation | Refused
    plugin: plugins.Plugin

    @property
    def origin(self) -> str:
        """The distribution of a plugin, ``torch.nn`` or ``built-in``."""
        return self.plugin.distribution or self.plugin.name


class Registry:
    """Names and who offers what under them."""

    def __init__(self, installed: plugins.Plugins) -> None:
        self.plugins = installed
        self._offers: dict[str, list[Offer]] = {}
        for plugin, offered in installed.contributions("p3d_activations"):
            self._add(plugin, offered)

    def _add(self, plugin: plugins.Plugin, offered: list[object]) -> None:
        wrong = [offer for offer in offered if not isinstance(offer, Activation | Refused)]
        if wrong:
            plugin.fail(TypeError(f"p3d_activations returned {wrong[0]!r}, which is not an Activation"))
            return
        for what in offered:
            assert isinstance(what, Activation | Refused)
            names = _names(what) if isinstance(what, Activation) else [what.name]
            if isinstance(what, Activation):
                plugin.detail = ", ".join(filter(None, [plugin.detail, what.name]))
            for name in {fold(name) for name in names}:
                offers = self._offers.setdefault(name, [])
                # the project's own come first: a torch that grows an activation of the same name changes nothing
                if plugin.distribution or not offers:
                    offers.append(Offer(what, plugin))

    def offers(self) -> list[Offer]:
        """Every activation that can be used, once."""
        single = [offers[0] for offers in self._offers.values() if len(offers) == 1]
        usable = [offer for offer in single if isinstance(offer.what, Activation)]
        return list({id(offer.what): offer for offer in usable}.values())

    def contested(self) -> dict[str, list[str]]:
        """Names that more than one distribution claims -> these."""
        return {n: [offer.origin for offer in offers] for n, offers in self._offers.items() if len(offers) > 1}

    def find(self, term: Term) -> Entry:
        """Return the activation that a config names, with all its arguments.

        Raises:
            ConfigError: there is none, it cannot be used, two distributions claim the name, or an argument is wrong.
        """
        offers = self._offers.get(fold(term.name), [])
        if not offers:
            self._refuse(term, f"is not a known final activation; {self._hint(term.name)}{self._left_out()}")
        if len(offers) > 1:
            claims = " and ".join(offer.origin for offer in offers)
            self._refuse(term, f"is claimed by {claims}; uninstall one, or leave it out with {plugins.BLOCK}=NAME.")
        if isinstance(offers[0].what, Refused):
            self._refuse(term, f"cannot be a final activation: {offers[0].what.reason}.")
        activation = offers[0].what
        return Entry(activation, activation.bind(term.arguments, term.place), term.place, offers[0].plugin.distribution)

    def _hint(self, name: str) -> str:
        if "," in name:
            return "a list of activations stands in brackets: [sigmoid, softplus]."
        if "(" in name or " " in name.strip():
            return "arguments go into a mapping: {name: softplus, beta: 2}."
        if "." in name:
            return "a name is not a path: nothing is imported because a config says so."
        if fold(name) in ("clip", "clamp"):
            return "for values between two bounds write {name: bounded, low: 0, high: 70} or hardtanh."
        names = {fold(key): key for offer in self.offers() for key in _names(offer.what)}
        nearest = get_close_matches(fold(name), list(names), n=1, cutoff=0.7)
        return f"did you mean {names[nearest[0]]}?" if nearest else "for unbounded values write none."

    def _left_out(self) -> str:
        left_out = [f"{plugin} ({plugin.state}: {plugin.detail})" for plugin in self.plugins.left_out()]
        return f" It may be of a plugin that is left out: {'; '.join(left_out)}." if left_out else ""

    def _refuse(self, term: Term, why: str) -> NoReturn:
        allowed = ", ".join(sorted(name for offer in self.offers() for name in _names(offer.what)))
        allowed = f"Allowed: {allowed} (see `p3d-regression activations`)."
        raise ConfigError(f"{term.place}: {reprlib.repr(term.name)} {why} {allowed} {EXAMPLE}")


def _names(activation: object) -> list[str]:
    assert isinstance(activation, Activation)
    return [activation.name, *activation.aliases]


def registry() -> Registry:
    """The registry of this process, made at the first call: plugins are loaded then."""
    with _lock:
        return _registry()


@cache
def _registry() -> Registry:
    return Registry(plugins.installed({BUILT_IN: builtin, TORCH_NN: torch_nn}))


def resolve(value: object, channels: int) -> FinalActivation:
    """Return the final activation that ``value``, read from a config, stands for in a model.

    Args:
        value: a name, a mapping with ``name`` and arguments, or a list of these.
        channels: output channels of the model.

    Raises:
        ConfigError: it is not understood, or makes no sense with so many channels.
    """
    spec = parse(value, channels)
    final = FinalActivation(tuple(registry().find(term) for term in spec.terms), channels)
    _check_channels(final, spec)
    return final


def _check_channels(final: FinalActivation, spec: Spec) -> None:
    for entry in final.entries:
        if entry.activation.over_channels and (spec.per_channel or final.channels == 1):
            raise ConfigError(_alone(entry, spec.per_channel))


def _alone(entry: Entry, in_list: bool) -> str:
    name, alone = entry.activation.name, entry.range(1)
    what = f"it would be {alone.low:g} in every voxel" if alone.low == alone.high else "there is no second one"
    where = "an entry of a list has one channel" if in_list else "model.out_channels is 1"
    return (
        f"{entry.place}: {name!r} acts over the channels, and {where}: {what}, whatever the network has learnt. "
        f"Fix: write `{KEY}: {name}` for all channels of a model that has several, sigmoid for a fraction or a "
        f"probability in one channel, none for unbounded values. {EXAMPLE}"
    )
