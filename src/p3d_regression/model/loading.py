"""What a U-Net does with what a checkpoint remembers, before it takes its weights: take over, compare, refuse."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from p3d_regression.activations.spec import KEY
from p3d_regression.model import memory as checkpoint_memory
from p3d_regression.model.memory import Memory
from p3d_regression.model.unet import (
    REPLACED,
    SAID,
    attach,
    attached,
    detach,
    forget_compiled,
    has_ours,
    is_unet,
    memory_of,
    set_scaling,
)
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.upstream.log import console, say

if TYPE_CHECKING:
    from p3d_regression.scaling.spec import Spec


def recall(unet: Any, state_dict: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Before weights are loaded into a U-Net: take over what the checkpoint remembers, or check it.

    Raises:
        CheckpointMismatchError: the U-Net has another final activation than the one the weights were trained with.
    """
    channels = getattr(getattr(unet, "final_conv", None), "out_channels", None)
    if not is_unet(unet) or channels is None or not _brings_a_head(state_dict, prefix, channels):
        return
    silent = not has_ours(unet) or hasattr(unet, REPLACED)
    kept = checkpoint_memory.from_metadata(metadata, channels)
    if not silent and not metadata and not hasattr(unet, SAID):
        console().warning(_FORGOTTEN)
    if silent and kept is None and has_ours(unet):
        _give_back(unet)
        say("this checkpoint remembers no final activation: the model has upstream's own again")
    elif silent and kept is not None:
        _adopt(unet, kept)
    elif not silent:
        own = attached(unet)
        if kept and checkpoint_memory.is_new_head(own, kept.final):
            say(f"final activation {own} from the config, on pre-trained weights that were trained with {kept.final}")
        _recall_scaling(unet, kept)


#: Every state_dict of a module has metadata; one without was put together by hand.
_FORGOTTEN = (
    "these weights come without the notes that torch keeps beside them: they were copied into a new dictionary, and if "
    f"they were trained with a target_scaling, THE OUTPUT IS IN WRONG UNITS. Write model.{SCALING}: none, if they were "
    "not, or the numbers, {mean: ..., std: ...}; or keep the notes, which are in the attribute _metadata of what "
    "state_dict() returns"
)


def _recall_scaling(unet: Any, kept: Memory | None) -> None:
    """Before weights are loaded into a U-Net with a final activation of its own."""
    own = memory_of(unet)
    scaling = kept.scaling if kept else None
    is_same = kept is not None and kept.final.plain == own.final.plain
    said: Spec | None = getattr(unet, SAID, None)
    if said is None:
        if scaling is not None and not is_same:
            say(f"the target scaling {scaling} of the checkpoint belongs to its final activation, and is left out")
        elif scaling != own.scaling:
            set_scaling(unet, scaling)
            what = "the model's output is not scaled" if scaling is None else scaling.describe(own.final)
            say(f"target scaling: {what}, taken from the checkpoint: the config has no line model.{SCALING}")
            forget_compiled()
    elif kept is None and not said.is_measured:
        pass  # of a checkpoint that was trained without our keys, the config decides
    elif checkpoint_memory.is_new_scaling(said, own.final, scaling):
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


def _adopt(unet: Any, kept: Memory) -> None:
    upstreams = getattr(unet, REPLACED)[0] if hasattr(unet, REPLACED) else unet.final_activation
    attach(unet, kept.final, kept.final.build())
    set_scaling(unet, kept.scaling)
    setattr(unet, REPLACED, (upstreams,))
    forget_compiled()
    line = f"final activation {kept.final.describe()}, taken from the checkpoint: the config has no line model.{KEY}"
    say(line if upstreams is None else f"{line} (upstream's {type(upstreams).__name__} is removed)")
    if kept.scaling is not None:
        say(f"target scaling: {kept.scaling.describe(kept.final)}, taken from the checkpoint")


def _give_back(unet: Any) -> None:
    """Give a U-Net the final activation that upstream had built, after a checkpoint's has replaced it."""
    (upstreams,) = getattr(unet, REPLACED)
    detach(unet)
    unet.final_activation = upstreams
    forget_compiled()
