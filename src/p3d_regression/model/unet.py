"""The U-Nets of pytorch-3dunet: how one gets a final activation, and how that gets into its checkpoints.

The activation is a child of the last convolution, applied by a forward hook on it, and the model's own
``final_activation`` is None. So whatever a version of pytorch-3dunet calls output or logits, in training and in
evaluation mode, is the same tensor: the one after the activation. Where there is a target scaling, it is a second
child, and the tensor is the one after both.
"""

import copy
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from p3d_regression.activations.spec import KEY
from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise
from p3d_regression.model import contract
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.model.memory import Memory
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.scaling.spec import PLACE, Spec
from p3d_regression.text import as_yaml

if TYPE_CHECKING:
    from torch import Tensor, nn

    from p3d_regression.activations.final import FinalActivation
    from p3d_regression.scaling.target import TargetScaling

#: Attribute of a U-Net: its checkpoint memory, plain data that is copied and pickled with it. Models that an earlier
#: version has pickled have it under this name.
_MEMORY = "_p3d_stamp"

#: Attribute of a U-Net: the contract of its training, as plain data.
_CONTRACT = "_p3d_contract"

#: Attribute of a U-Net that has a checkpoint's final activation: pytorch-3dunet's own, in a tuple, so not a child.
REPLACED = "_p3d_replaced"

#: Attribute of a U-Net whose config has a line target_scaling: the specification.
CONFIGURED = "_p3d_scaling"


def set_final_activation(model: "nn.Module", value: object) -> "nn.Module":
    """Give a U-Net that was built from its class another final activation, in place.

    Args:
        model: an instance of one of upstream's model classes, or one wrapped in ``DataParallel``. Its weights
            and the keys of its ``state_dict`` stay as they are.
        value: a value of ``final_activation`` in a config, such as ``"none"``,
            ``{"name": "softplus", "beta": 2}`` or ``["sigmoid", "softplus"]``. A target scaling stays.

    Returns:
        The same model.

    Raises:
        ConfigError: ``value`` is not understood, or makes no sense with the model's output channels or scaling.
        TypeError: ``model`` is not one of upstream's U-Nets.
    """
    from p3d_regression.activations.registry import resolve
    from p3d_regression.scaling.target import check

    unet = inside(model)
    final = resolve(value, unet.final_conv.out_channels)
    scaling = memory_of(unet).scaling if is_attached(unet) else None
    if scaling is not None:
        check(Spec(scaling.terms), final)
    elif is_unmeasured(unet):
        check(getattr(unet, CONFIGURED), final)
    attach(unet, final, final.build())
    if scaling is not None:
        set_scaling(unet, scaling)
    forget_compiled()
    return model


def set_target_scaling(model: "nn.Module", value: object) -> "nn.Module":
    """Scale the output of a U-Net to the units of its labels, in place.

    Args:
        model: an instance of one of upstream's model classes that has a final activation of this project, or one
            wrapped in ``DataParallel``. Its weights and the keys of its ``state_dict`` stay as they are.
        value: ``{"mean": 12.5, "std": 13}``, with a list of numbers for several channels; or ``"none"``.

    Returns:
        The same model.

    Raises:
        ConfigError: ``value`` is not understood, or makes no sense with the model's channels or final activation; or
            it is ``"standardize"``, for which a training measures the labels.
        TypeError: ``model`` is not one of upstream's U-Nets.
    """
    from p3d_regression.scaling.spec import parse
    from p3d_regression.scaling.target import scaling_of

    unet = inside(model)
    if not is_attached(unet):
        raise ConfigError(
            PLACE,
            "the model has no final activation to scale.",
            advise("call set_final_activation(model, 'none') before, or write both keys into its config"),
        )
    spec = parse(value, unet.final_conv.out_channels)
    if spec.is_open:
        raise ConfigError(
            PLACE,
            "only a training measures labels.",
            advise("pass the numbers, such as {'mean': 12.5, 'std': 13}, or leave it to train3dunet"),
        )
    note_scaling(unet, spec)
    set_scaling(unet, scaling_of(spec, attached(unet)))
    # from now on it is the user's, not a checkpoint's
    unet.__dict__.pop(REPLACED, None)
    forget_compiled()
    return model


def attach(unet: Any, final: "FinalActivation", module: "nn.Module") -> None:
    """Make ``final``, built as ``module``, the function between the last convolution of a U-Net and its output."""
    conv = unet.final_conv
    if KEY not in conv._modules:
        conv.register_forward_hook(_apply)
    if not hasattr(unet, _MEMORY):
        unet.register_forward_pre_hook(_refuse_without)
        unet.register_state_dict_post_hook(_remember)
    conv.add_module(KEY, module)
    unet.final_activation = None  # "no activation" for pytorch-3dunet, in every version since 1.3
    unet.__dict__.pop(REPLACED, None)
    setattr(unet, _MEMORY, checkpoint_memory.to_plain(Memory(final)))


def note_contract(unet: Any, plain: Mapping[str, Any]) -> None:
    """Let the checkpoints of a U-Net that has a final activation hold the contract of its training."""
    setattr(unet, _CONTRACT, plain)


def note_scaling(unet: Any, spec: Spec) -> None:
    """Keep the target scaling that the config names; a model without it takes that of each checkpoint."""
    setattr(unet, CONFIGURED, spec)


def attach_scaling(unet: Any, spec: Spec) -> str:
    """Scale the output of a U-Net that has a final activation, as its config names the scaling.

    Returns:
        The scaling in words, for a line of the log.
    """
    from p3d_regression.scaling.modules import Unmeasured
    from p3d_regression.scaling.target import scaling_of

    note_scaling(unet, spec)
    if spec.is_open:
        unet.final_conv.add_module(SCALING, Unmeasured())
        return "to be measured, or to come with a checkpoint"
    scaling = scaling_of(spec, attached(unet))
    set_scaling(unet, scaling)
    return "none" if scaling is None else scaling.describe(attached(unet))


def set_scaling(unet: Any, scaling: "TargetScaling | None") -> None:
    """Scale the output of a U-Net that has a final activation, or leave it as it is; its checkpoints say which."""
    if scaling is None:
        unet.final_conv._modules.pop(SCALING, None)
    else:
        device = unet.final_conv.weight.device
        # one without memory gets its weights later, and moves then
        unet.final_conv.add_module(SCALING, scaling.build().to("cpu" if device.type == "meta" else device))
    _follow(unet, follows=scaling is not None and scaling.follows_raw)
    setattr(unet, _MEMORY, checkpoint_memory.to_plain(Memory(attached(unet), scaling)))


def _follow(unet: Any, *, follows: bool) -> None:
    has_hook = any(hook is _follow_raw for hook in unet._forward_hooks.values())
    if follows and not has_hook:
        unet.register_forward_hook(_follow_raw, with_kwargs=True)
    elif has_hook and not follows:
        _remove(_follow_raw, unet._forward_hooks)


def is_unmeasured(unet: Any) -> bool:
    """Whether the numbers of a target scaling are still to come."""
    from p3d_regression.scaling.modules import Unmeasured

    return isinstance(unet.final_conv._modules.get(SCALING), Unmeasured)


def detach(unet: Any) -> None:
    """Take off what :func:`attach` and :func:`attach_scaling` have put on a U-Net."""
    del unet.final_conv._modules[KEY]
    unet.final_conv._modules.pop(SCALING, None)
    _follow(unet, follows=False)
    _remove(_apply, unet.final_conv._forward_hooks)
    _remove(_refuse_without, unet._forward_pre_hooks)
    _remove(_remember, unet._state_dict_hooks)
    for name in (_MEMORY, _CONTRACT, REPLACED, CONFIGURED):
        unet.__dict__.pop(name, None)


def _remove(hook: object, hooks: dict[int, object]) -> None:
    # not through the handles of torch, which a copied or unpickled model does not have
    for key in [key for key, value in hooks.items() if value is hook]:
        del hooks[key]


def forget_compiled() -> None:
    # torch.compile does not notice new hooks on a module that it has compiled before. This makes it compile all
    # models of the process anew, so it is left out where a model was just built.
    if "torch._dynamo" in sys.modules:
        import torch

        torch.compiler.reset()


def has_activation(unet: Any) -> bool:
    """Whether the last convolution of a U-Net still has the final activation that :func:`attach` has put on it."""
    return KEY in unet.final_conv._modules


# The hooks are functions of a module, not closures, so that models can be pickled.


def _apply(conv: Any, inputs: Any, output: "Tensor") -> "Tensor":
    activated: Tensor = conv.final_activation(output)
    if SCALING in conv._modules and not conv.target_scaling.needs_raw:
        activated = conv.target_scaling(activated)
    return activated


def _follow_raw(unet: Any, inputs: Any, keywords: Mapping[str, Any], output: Any) -> Any:
    """Scale an output that follows the raw patch, which the last convolution does not see."""
    raw = inputs[0] if inputs else next(iter(keywords.values()))
    # without an activation of its own, pytorch-3dunet returns one tensor as output and as logits
    found = unet.final_conv.target_scaling(output[0] if isinstance(output, tuple) else output, raw)
    return (found,) * len(output) if isinstance(output, tuple) else found


def _refuse_without(unet: Any, inputs: Any) -> None:
    """Refuse to compute after other code has replaced the final activation or the layer that it is on."""
    # nothing but the two comparisons is done in each step, and traced by torch.compile and torch.export
    if not has_activation(unet) or unet.final_activation is not None:
        _refuse(unet)


def _refuse(unet: Any) -> NoReturn:
    name, value = type(unet).__name__, as_yaml(attached(unet).plain)
    if has_activation(unet):
        what = f"{name}.final_activation was assigned after the final activation {value} was set: both would apply."
    else:
        what = f"{name}.final_conv was replaced, and the final activation {value} was lost with the old one."
    raise RuntimeError(f"{what} Call p3d_regression.set_final_activation(model, ...) instead, or after that.")


def _remember(unet: Any, state_dict: Any, prefix: str, metadata: dict[str, Any]) -> None:
    if has_activation(unet) and unet.final_activation is None and not is_unmeasured(unet):
        metadata[checkpoint_memory.METADATA_KEY] = copy.deepcopy(getattr(unet, _MEMORY))
        if hasattr(unet, _CONTRACT):
            metadata[contract.METADATA_KEY] = copy.deepcopy(getattr(unet, _CONTRACT))


def is_attached(unet: Any) -> bool:
    """Whether a U-Net has a final activation of this project."""
    return hasattr(unet, _MEMORY)


def attached(unet: Any) -> "FinalActivation":
    """The final activation that :func:`attach` has put on a U-Net."""
    return memory_of(unet).final


def memory_of(unet: Any) -> Memory:
    """What this project has put on a U-Net."""
    return checkpoint_memory.from_plain(getattr(unet, _MEMORY), unet.final_conv.out_channels)


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
