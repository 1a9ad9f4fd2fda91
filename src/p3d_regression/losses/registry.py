"""All losses that a config may name: the project's own, those of ``torch.nn``, upstream's, those of plugins."""

from p3d_regression import plugins
from p3d_regression.components.component import Refused
from p3d_regression.components.registry import BUILT_IN, TORCH_NN, UPSTREAM, Family, Registry
from p3d_regression.losses import builtin, of_upstream, torch_nn
from p3d_regression.losses.loss import Loss
from p3d_regression.plugins import singleton

EXAMPLE = "Example:\n  loss:\n    name: HuberLoss\n    delta: 1.0"

FAMILY = Family(
    Loss,
    hook="p3d_losses",
    noun="a loss",
    command="losses",
    example=EXAMPLE,
    fallback="for unbounded values write MSELoss, L1Loss or HuberLoss.",
)


@singleton
def registry() -> Registry[Loss]:
    """The registry of this process, made at the first call: plugins are loaded then."""
    own: dict[str, list[Loss] | list[Loss | Refused]] = {
        BUILT_IN: builtin.losses(),
        TORCH_NN: torch_nn.losses(),
        UPSTREAM: of_upstream.losses(),
    }
    return Registry(FAMILY, own, plugins.installed())
