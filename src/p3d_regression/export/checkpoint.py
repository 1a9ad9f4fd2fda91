"""Checkpoints of pytorch-3dunet and their models, outside of a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p3d_regression.errors import ConfigError, ExportError, UnsupportedUpstreamError
from p3d_regression.model import unet
from p3d_regression.model.memory import Memory
from p3d_regression.patches import activation
from p3d_regression.upstream import checkpoints, introspection

if TYPE_CHECKING:
    from torch import nn


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of pytorch-3dunet's trainer.

    Raises:
        ExportError: the file is not such a checkpoint.
    """
    try:
        state = checkpoints.load_checkpoint(path)
    except Exception as error:
        raise ExportError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error})") from error
    if not (isinstance(state, dict) and isinstance(state.get("model_state_dict"), Mapping)):
        raise ExportError(f"{path} is not a checkpoint of pytorch-3dunet: it has no model_state_dict")
    return state


def build(section: Mapping[str, Any], weights: Mapping[str, Any], config: Path) -> "nn.Module":
    """Build the model of a config, with weights, for predictions on the CPU.

    Raises:
        ConfigError: config and weights contradict each other.
        ExportError: the model cannot be built, or the weights belong to another model.
    """
    activation.activate()
    if not activation.builder_is_ready():
        raise ExportError(f"the plugin is not active: {activation.unsupported_builder()}")
    try:
        with introspection.quiet():
            model: nn.Module = introspection.module_of("pytorch3dunet.unet3d.model").get_model(dict(section))
            model.load_state_dict(weights)
    except (ConfigError, UnsupportedUpstreamError):
        raise
    except Exception as error:
        raise ExportError(f"the checkpoint does not fit the section model of {config}: {error}") from error
    return model.eval()


def memory_of(model: "nn.Module") -> Memory | None:
    """What this project attached to a model; None for a model without it."""
    return unet.memory_of(model) if unet.is_attached(model) else None
