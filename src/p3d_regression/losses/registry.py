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
        # those that most people look for come first
        rows = super().rows()
        first = [row for row in rows if row["origin"] == TORCH_NN]
        return [*first, *map(_composed, COMPOSITES), *(row for row in rows if row["origin"] != TORCH_NN)]


@singleton
def registry() -> Losses:
    """The registry of this process, made at the first call: plugins are loaded then."""
    own: dict[str, list[Loss] | list[Loss | Refused]] = {
        BUILT_IN: builtin.losses(),
        TORCH_NN: torch_nn.losses(),
        UPSTREAM: [_part_of_a_sum(loss) for loss in of_upstream.losses()],
    }
    return Losses(FAMILY, own, plugins.installed())


def _part_of_a_sum(loss: Loss) -> Loss | Refused:
    if loss.compares == "classes":
        return Refused(loss.name, "it compares classes, and does not have a loss for each voxel")
    return loss


def known(name: object) -> Loss | None:
    """What is known of a loss of exactly this name that no plugin brings; maybe pytorch-3dunet alone can build it."""
    return _declared().get(name) if isinstance(name, str) else None


@singleton
def _declared() -> dict[str, Loss]:
    losses = [*builtin.losses(), *torch_nn.declared(), *of_upstream.losses()]
    return {loss.name: loss for loss in losses}


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
