"""What a U-Net does with the memory of a checkpoint before it takes the weights: adopt it, compare it, or refuse."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from p3d_regression.activations.spec import KEY
from p3d_regression.errors import CheckpointMismatchError
from p3d_regression.model import contract
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.model.differences import differences
from p3d_regression.model.memory import Memory
from p3d_regression.model.unet import (
    CONFIGURED,
    REPLACED,
    attach,
    attached,
    detach,
    forget_compiled,
    has_activation,
    is_unet,
    memory_of,
    note_contract,
    set_scaling,
)
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.upstream.log import console, say

if TYPE_CHECKING:
    from p3d_regression.scaling.spec import Spec


#: The model section that a U-Net was built from, for those that ``get_model`` has built.
_sections: "WeakKeyDictionary[Any, Mapping[str, Any]]" = WeakKeyDictionary()


def note_section(unet: Any, section: Mapping[str, Any]) -> None:
    """Remember what a U-Net was built from, to compare it with its checkpoint."""
    _sections[unet] = dict(section)


def before_loading(unet: Any, state_dict: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Before weights are loaded into a U-Net: adopt the memory of their checkpoint, or compare with it.

    Raises:
        CheckpointMismatchError: the U-Net has another final activation than the one the weights were trained with.
    """
    channels = getattr(getattr(unet, "final_conv", None), "out_channels", None)
    if not is_unet(unet) or channels is None or not _brings_a_head(state_dict, prefix, channels):
        return
    _compare_network(unet, metadata)
    silent = not has_activation(unet) or hasattr(unet, REPLACED)
    memory = checkpoint_memory.from_metadata(metadata, channels)
    if not silent and not metadata and not hasattr(unet, CONFIGURED):
        console().warning(_NO_METADATA)
    if silent and memory is None and has_activation(unet):
        _give_back(unet)
        say("this checkpoint stores no final activation: the model uses that of pytorch-3dunet again")
    elif silent and memory is not None:
        _adopt(unet, memory)
    elif not silent:
        own = attached(unet)
        if memory and checkpoint_memory.is_new_head(own, memory.final):
            say(f"final activation {own} from the config, on pre-trained weights that were trained with {memory.final}")
        _compare_scaling(unet, memory)


def _compare_network(unet: Any, metadata: Mapping[str, Any]) -> None:
    """Stop where the same weights would be another function.

    Raises:
        CheckpointMismatchError: the network was built with other arguments than that of the training.
    """
    trained, section = contract.held_by(metadata), _sections.get(unet)
    if trained is None:
        return
    note_contract(unet, trained.contract.plain)
    own = {"model": section or {}}
    for difference in differences(own, "", trained, is_start=False):
        found = difference.found
        if os.environ.get(contract.SETTING, "").strip().lower() not in ("warn", "off"):
            raise CheckpointMismatchError(found.key, found.message, found.fix)
        console().warning(f"{found.key} {found.message}")


#: Every state_dict of a module has metadata; one without was assembled by hand.
_NO_METADATA = (
    "these weights have lost the metadata of their state_dict, probably because they were copied into a new "
    "dictionary: if they were trained with a target_scaling, THE OUTPUT IS IN WRONG UNITS. Write "
    f"model.{SCALING}: none if they were not, or the numbers, {{mean: ..., std: ...}}; or copy the attribute _metadata "
    "of what state_dict() returns as well"
)


def _compare_scaling(unet: Any, memory: Memory | None) -> None:
    """Before weights are loaded into a U-Net with a final activation of its own."""
    own = memory_of(unet)
    scaling = memory.scaling if memory else None
    is_same = memory is not None and memory.final.plain == own.final.plain
    configured: Spec | None = getattr(unet, CONFIGURED, None)
    if configured is None:
        if scaling is not None and not is_same:
            say(f"the target scaling {scaling} of the checkpoint belongs to its final activation and is not used")
        elif scaling != own.scaling:
            set_scaling(unet, scaling)
            what = "the model's output is not scaled" if scaling is None else scaling.describe(own.final)
            say(f"target scaling: {what}, taken from the checkpoint: the config has no line model.{SCALING}")
            forget_compiled()
    elif memory is None and not configured.is_open:
        pass  # the checkpoint was trained without the plugin's keys: the config decides
    elif checkpoint_memory.is_new_scaling(configured, own.final, scaling):
        was, now = (str(found or "none") for found in (scaling, own.scaling))
        say(f"target scaling {now} from the config, on pre-trained weights that were trained with {was}")
    elif scaling is not None and scaling != own.scaling:
        set_scaling(unet, scaling)
        say(f"target scaling: {scaling.describe(own.final)}, measured for the training of the checkpoint")
        forget_compiled()


def _brings_a_head(state_dict: Mapping[str, Any], prefix: str, channels: int) -> bool:
    """Whether the weights are those of a last convolution with so many channels.

    Others torch refuses and says why, or it has been told to load the other layers only.
    """
    heads = {key: value for key, value in state_dict.items() if key.startswith(f"{prefix}final_conv.")}
    weight = heads.get(f"{prefix}final_conv.weight")
    # a parametrised convolution, as by weight_norm, has no weight of that name
    return bool(heads) and (weight is None or weight.shape[0] == channels)


def _adopt(unet: Any, memory: Memory) -> None:
    upstreams = getattr(unet, REPLACED)[0] if hasattr(unet, REPLACED) else unet.final_activation
    attach(unet, memory.final, memory.final.build())
    set_scaling(unet, memory.scaling)
    setattr(unet, REPLACED, (upstreams,))
    forget_compiled()
    line = f"final activation {memory.final.describe()}, taken from the checkpoint: the config has no line model.{KEY}"
    say(line if upstreams is None else f"{line} (pytorch-3dunet's {type(upstreams).__name__} is removed)")
    if memory.scaling is not None:
        say(f"target scaling: {memory.scaling.describe(memory.final)}, taken from the checkpoint")


def _give_back(unet: Any) -> None:
    """Give a U-Net the final activation that pytorch-3dunet has built, after a checkpoint's has replaced it."""
    (upstreams,) = getattr(unet, REPLACED)
    detach(unet)
    unet.final_activation = upstreams
    forget_compiled()
