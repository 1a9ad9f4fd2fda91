"""All losses that a config may name: the project's own, those of ``torch.nn``, upstream's, those of plugins."""

from p3d_regression import installed
from p3d_regression.components.registry import Family, Registry
from p3d_regression.losses.loss import Loss
from p3d_regression.once import once

EXAMPLE = "Example:\n  loss:\n    name: HuberLoss\n    delta: 1.0"

FAMILY = Family(
    Loss,
    hook="p3d_losses",
    noun="a loss",
    command="losses",
    example=EXAMPLE,
    fallback="for unbounded values write MSELoss, L1Loss or HuberLoss.",
)


@once
def registry() -> Registry[Loss]:
    """The registry of this process, made at the first call: plugins are loaded then."""
    return Registry(FAMILY, installed.everything())
