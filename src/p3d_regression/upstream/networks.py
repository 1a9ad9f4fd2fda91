"""Networks of pytorch-3dunet without memory for their weights, to see what a ``model`` section stands for."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from p3d_regression._patching import original_of
from p3d_regression.upstream.introspection import quiet


def on_meta_device(model_config: Mapping[str, Any]) -> Any:
    """The network that upstream builds of a ``model`` section, on torch's meta device.

    No random number is drawn, and no memory is taken. The keys of this project are to be left out.

    Raises:
        Exception: whatever upstream says against the section.
    """
    import torch

    with quiet(), torch.device("meta"):
        return original_of(import_module("pytorch3dunet.unet3d.model").get_model)(dict(model_config))
