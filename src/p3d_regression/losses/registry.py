"""All losses that a config may name: the project's own, those of ``torch.nn``, pytorch-3dunet's, those of plugins."""

from typing import Any

from p3d_regression import plugins
from p3d_regression.components.component import Refused
from p3d_regression.components.registry import BUILT_IN, TORCH_NN, UPSTREAM, Family, Registry
from p3d_regression.losses import builtin, of_upstream, torch_nn
from p3d_regression.losses.loss import Loss
from p3d_regression.losses.spec import CHANNELWISE, COMPOSITES, EXAMPLES, WEIGHTED_SUM
from p3d_regression.plugins import singleton

FAMILY = Family(
    Loss,
    hook="p3d_losses",
    example="HuberLoss",
    fallback="For unbounded values write MSELoss, L1Loss or HuberLoss.",
)


#: Losses that are made of others -> what each is for.
_COMPOSED = {
    CHANNELWISE: "a loss for each channel of the labels, added up: mask and distance, mean and variance",
    WEIGHTED_SUM: "several losses of the same output, added up",
}


class Losses(Registry[Loss]):
    """All losses."""

    def rows(self) -> list[dict[str, Any]]:
        return [*super().rows(), *map(_composed, COMPOSITES)]


@singleton
def registry() -> Losses:
    """The registry of this process, made at the first call: plugins are loaded then."""
    own = {origin: [_usable(loss) for loss in losses] for origin, losses in _own().items()}
    return Losses(FAMILY, own, plugins.installed())


def known(name: object) -> Loss | None:
    """What is known of a loss of exactly this name that no plugin brings; maybe pytorch-3dunet alone can build it."""
    losses = [loss for losses in _own().values() for loss in losses if isinstance(loss, Loss)]
    return next((loss for loss in losses if loss.name == name), None)


@singleton
def _own() -> dict[str, list[Loss | Refused]]:
    return {BUILT_IN: [*builtin.losses()], TORCH_NN: torch_nn.losses(), UPSTREAM: [*of_upstream.losses()]}


def _usable(loss: Loss | Refused) -> Loss | Refused:
    if isinstance(loss, Loss) and loss.compares == "classes":
        return Refused(loss.name, "it compares classes, and does not have a loss for each voxel")
    return loss


def _composed(name: str) -> dict[str, Any]:
    key, example = COMPOSITES[name], EXAMPLES[name]
    return {
        "name": name,
        "aliases": [],
        "example": {"name": name, key: example},
        "arguments": [{"name": key, "kind": "a list of losses", "required": True, "default": None}],
        "outputs": "of its losses",
        "labels": "of its losses",
        "ignores": True,
        "output_channels": 1,
        "origin": BUILT_IN,
        "distribution": None,
        "use": _COMPOSED[name],
    }
