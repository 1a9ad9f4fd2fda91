"""All final activations that a config may name: the project's own, those of ``torch.nn``, those of plugins."""

from p3d_regression import plugins
from p3d_regression.activations import modules, torch_nn
from p3d_regression.activations.activation import Activation
from p3d_regression.activations.final import FinalActivation, range_of
from p3d_regression.activations.spec import PLACE, parse
from p3d_regression.components.component import Refused
from p3d_regression.components.configured import Configured
from p3d_regression.components.registry import BUILT_IN, TORCH_NN, Family, Registry
from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.plugins import singleton

FAMILY = Family(
    Activation,
    hook="p3d_activations",
    example="none",
    fallback="For unbounded values write none.",
    synonyms={"clip": "bounded", "clamp": "bounded"},
)


@singleton
def registry() -> Registry[Activation]:
    """The registry of this process, made at the first call: plugins are loaded then."""
    own: dict[str, list[Activation] | list[Activation | Refused]] = {
        BUILT_IN: modules.activations(),
        TORCH_NN: torch_nn.activations(),
    }
    return Registry(FAMILY, own, plugins.installed())


def resolve(value: object, channels: int) -> FinalActivation:
    """Return the final activation for a value in a config.

    Args:
        value: a name, a mapping with ``name`` and arguments, or a list of these.
        channels: output channels of the model.

    Raises:
        ConfigError: it is not understood, or does not fit so many channels.
    """
    spec = parse(value, channels)
    entries = tuple(registry().configured(term.name, term.arguments, term.place) for term in spec.terms)
    for entry in entries:
        if entry.component.over_channels and (spec.per_channel or channels == 1):
            raise _alone(entry, channels, in_list=spec.per_channel)
    return FinalActivation(entries, channels)


def _alone(entry: Configured[Activation], channels: int, *, in_list: bool) -> ConfigError:
    name, alone = entry.component.name, range_of(entry, 1)
    what = f"the output would be {alone.low:g} in every voxel" if alone.low == alone.high else "there is no second one"
    where = "an entry of a list has one channel" if in_list else "model.out_channels is 1"
    why = f"{name!r} acts over the channels, and {where}: {what} for any input."
    if channels > 1:
        return ConfigError(entry.place, f"{why} Without a list it acts over all channels.", write(PLACE, entry.short))
    hint = "sigmoid is for a fraction or a probability in one channel, none for unbounded values."
    return ConfigError(entry.place, f"{why} {hint}", write(PLACE, "sigmoid" if alone.high == 1 else "none"))
