"""All final activations that a config may name: the project's own, those of ``torch.nn``, those of plugins."""

from p3d_regression import plugins
from p3d_regression.activations import builtin, torch_nn
from p3d_regression.activations.activation import Activation
from p3d_regression.activations.final import Entry, FinalActivation
from p3d_regression.activations.spec import EXAMPLE, KEY, Spec, Term, parse
from p3d_regression.components.component import Refused
from p3d_regression.components.registry import BUILT_IN, TORCH_NN, Family, Registry
from p3d_regression.errors import ConfigError
from p3d_regression.plugins import singleton
from p3d_regression.text import fold


def _hint(name: str) -> str | None:
    if "," in name:
        return "a list of activations stands in brackets: [sigmoid, softplus]."
    if "(" in name or " " in name.strip():
        return "arguments go into a mapping: {name: softplus, beta: 2}."
    if fold(name) in ("clip", "clamp"):
        return "for values between two bounds write {name: bounded, low: 0, high: 70} or hardtanh."
    return None


FAMILY = Family(
    Activation,
    hook="p3d_activations",
    noun="a final activation",
    command="activations",
    example=EXAMPLE,
    hint=_hint,
    fallback="for unbounded values write none.",
)


class Activations(Registry[Activation]):
    """All final activations."""

    def entry(self, term: Term) -> Entry:
        """Return the activation that a config names, with all its arguments.

        Raises:
            ConfigError: there is none, it cannot be used, two distributions claim the name, or an argument is wrong.
        """
        offer = self.find(term.name, term.place)
        activation = offer.component
        return Entry(activation, activation.bind(term.arguments, term.place), term.place, offer.plugin.distribution)


@singleton
def registry() -> Activations:
    """The registry of this process, made at the first call: plugins are loaded then."""
    own: dict[str, list[Activation] | list[Activation | Refused]] = {
        BUILT_IN: builtin.activations(),
        TORCH_NN: torch_nn.activations(),
    }
    return Activations(FAMILY, own, plugins.installed())


def resolve(value: object, channels: int) -> FinalActivation:
    """Return the final activation that ``value``, read from a config, stands for in a model.

    Args:
        value: a name, a mapping with ``name`` and arguments, or a list of these.
        channels: output channels of the model.

    Raises:
        ConfigError: it is not understood, or makes no sense with so many channels.
    """
    spec = parse(value, channels)
    final = FinalActivation(tuple(registry().entry(term) for term in spec.terms), channels)
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
