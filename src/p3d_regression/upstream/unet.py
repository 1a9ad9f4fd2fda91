"""Upstream's U-Nets: how a final activation is put on one, and how it gets into its checkpoints and out of them.

The activation is a child of the last convolution, applied by a forward hook on it, and the model's own
``final_activation`` is None. So whatever a version of upstream calls output or logits, in training and in
evaluation mode, is the same tensor: the one after the activation.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from p3d_regression import __version__, checkpoint
from p3d_regression.activations.activation import as_yaml
from p3d_regression.activations.spec import KEY

if TYPE_CHECKING:
    from torch import Tensor, nn

    from p3d_regression.activations.final import FinalActivation

#: Attribute of a U-Net that holds its final activation as plain data, so that it is copied and pickled with it.
_PLAIN = "_p3d_final_activation"


def set_final_activation(model: "nn.Module", value: object) -> "nn.Module":
    """Give a U-Net that was built from its class another final activation, in place.

    Args:
        model: an instance of one of upstream's model classes, or one wrapped in ``DataParallel``. Its weights
            and the keys of its ``state_dict`` stay as they are.
        value: what a config may say after ``final_activation:``, such as ``"none"``,
            ``{"name": "softplus", "beta": 2}`` or ``["sigmoid", "softplus"]``.

    Returns:
        The same model.

    Raises:
        ConfigError: ``value`` is not understood, or makes no sense with the model's output channels.
        TypeError: ``model`` is not one of upstream's U-Nets.
    """
    from p3d_regression.activations.registry import resolve

    unet = inside(model)
    final = resolve(value, unet.final_conv.out_channels)
    attach(unet, final, final.build())
    return model


def attach(unet: Any, final: "FinalActivation", module: "nn.Module") -> None:
    """Make ``final``, built as ``module``, the function between the last convolution of a U-Net and its output."""
    conv = unet.final_conv
    if KEY not in conv._modules:
        conv.register_forward_hook(_apply)
    if not hasattr(unet, _PLAIN):
        unet.register_forward_pre_hook(_refuse_without)
        unet.register_state_dict_post_hook(_stamp)
    conv.add_module(KEY, module)
    unet.final_activation = None  # upstream's own spelling of "no activation", in every version since 1.3
    setattr(unet, _PLAIN, final.plain)


def attached(unet: Any) -> "FinalActivation | None":
    """The final activation that :func:`attach` has put on a U-Net; None if it has upstream's own."""
    from p3d_regression.activations.registry import resolve

    if KEY not in unet.final_conv._modules:
        return None
    return resolve(getattr(unet, _PLAIN), unet.final_conv.out_channels)


# The hooks are functions of a module, not closures, so that models can be pickled.


def _apply(conv: Any, inputs: Any, output: "Tensor") -> "Tensor":
    activated: Tensor = conv.final_activation(output)
    return activated


def _refuse_without(unet: Any, inputs: Any) -> None:
    if KEY not in unet.final_conv._modules:
        raise RuntimeError(
            f"{type(unet).__name__}.final_conv has been replaced, and the final activation "
            f"{as_yaml(getattr(unet, _PLAIN))} went with the old one. "
            "Call p3d_regression.set_final_activation(model, ...) after that."
        )


def _stamp(unet: Any, state_dict: Any, prefix: str, metadata: dict[str, Any]) -> None:
    final = attached(unet)
    if final is not None:
        checkpoint.stamp(metadata, final)


def recall(unet: Any, state_dict: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Before weights are loaded into a U-Net: take over what the checkpoint remembers, or check it.

    Raises:
        CheckpointMismatchError: the U-Net has another final activation than the one the weights were trained with.
    """
    if not is_unet(unet):
        return
    weight = state_dict.get(f"{prefix}final_conv.weight")
    channels = unet.final_conv.out_channels
    if weight is None or weight.shape[0] != channels:
        return  # torch refuses it and says why, or is told to load the other layers only
    kept = checkpoint.remembered(metadata, channels)
    if kept is None:
        return
    own = attached(unet)
    if own is None:
        upstreams = type(unet.final_activation).__name__
        attach(unet, kept, kept.build())
        say(
            f"final activation {kept.describe()}, taken from the checkpoint: the config has no line model.{KEY}"
            + ("" if upstreams == "NoneType" else f" (upstream's {upstreams} is removed)")
        )
    elif checkpoint.is_new_head(own, kept):
        say(f"final activation {own} from the config, on pre-trained weights that were trained with {kept}")


def inside(model: Any) -> Any:
    """The U-Net inside ``DataParallel`` and ``DistributedDataParallel``, or ``model`` itself."""
    from torch import nn

    unet = model.module if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else model
    if not is_unet(unet):
        raise TypeError(
            f"{type(unet).__name__} is not one of pytorch3dunet's U-Nets: it has no layer final_conv of its own. "
            "Set the final activation on the U-Net itself, before it is wrapped."
        )
    return unet


def is_unet(model: object) -> bool:
    from torch import nn

    # Looked up in the module itself: a wrapper that passes attributes on would take an assignment, and ignore it.
    return isinstance(model, nn.Module) and "final_conv" in model._modules and hasattr(model, KEY)


def say(line: str) -> None:
    """Tell the user what the plugin did, in a line of the log."""
    console().info(f"p3d-regression {__version__}: {line}")


def console() -> logging.Logger:
    """The logger for what the user should see: its lines are printed among upstream's, and like them."""
    from pytorch3dunet.unet3d.utils import get_logger

    logger: logging.Logger = get_logger("P3DRegression")
    return logger
