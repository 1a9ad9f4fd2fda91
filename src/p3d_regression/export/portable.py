"""A checkpoint for people without the plugin: which models pytorch-3dunet alone can compute, and their config."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from p3d_regression.errors import ExportError
from p3d_regression.keys import PLUGIN_KEYS
from p3d_regression.model import contract, last_layer
from p3d_regression.model.memory import METADATA_KEY, Memory
from p3d_regression.scaling.target import TargetScaling

_CONV = "final_conv"


def section_of(section: Mapping[str, Any], memory: Memory) -> dict[str, Any]:
    """Return the model section that gives the same predictions in plain pytorch-3dunet.

    Args:
        section: of a config that uses the plugin.
        memory: what the model was trained with.

    Raises:
        ExportError: plain pytorch-3dunet has no such final activation.
    """
    final = memory.final
    if not (isinstance(final.plain, str) and final.plain in last_layer.UPSTREAM):
        what = "an activation per channel" if isinstance(final.plain, list) else f"the final activation {final}"
        raise ExportError(
            f"plain pytorch-3dunet cannot express {what}: it has only none (is_segmentation: false), a Sigmoid "
            "and a Softmax, each for all channels. Use --format onnx or --format pt2 for a file that needs neither "
            "package, or install p3d-regression where the checkpoint is used."
        )
    kept = {k: v for k, v in section.items() if k not in (*PLUGIN_KEYS, "is_segmentation", "final_sigmoid")}
    return {**kept, **last_layer.UPSTREAM[final.plain]}


def weights_of(weights: Mapping[str, Any], memory: Memory) -> "OrderedDict[str, Any]":
    """Return the weights with the scaling in the last convolution, and without the checkpoint memory.

    Args:
        weights: ``model_state_dict`` of a checkpoint; not changed.
        memory: what the model was trained with; plain pytorch-3dunet knows its activation.

    Raises:
        ExportError: the checkpoint has no plain last convolution that could include the scaling.
    """
    folded = OrderedDict(weights)
    if memory.scaling is not None:
        folded.update(_folded(weights, memory.scaling))
    metadata = {
        name: {k: v for k, v in entry.items() if k not in (METADATA_KEY, contract.METADATA_KEY)}
        for name, entry in _metadata(weights).items()
        if name.rpartition(".")[2] not in PLUGIN_KEYS
    }
    folded._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]  # torch's own place for it
    return folded


def _metadata(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = getattr(weights, "_metadata", {})
    return metadata


def _folded(weights: Mapping[str, Any], scaling: TargetScaling) -> dict[str, Any]:
    """``mean + std * (W x + b)`` as one convolution, computed in double precision and rounded once."""
    import torch

    if scaling.follows_raw:
        raise ExportError(
            f"target_scaling: {scaling} adds the raw volume to the output, which plain pytorch-3dunet cannot do. Use "
            "--format pt2 or --format onnx, or predict with p3d-regression installed"
        )
    names = [f"{_CONV}.weight", f"{_CONV}.bias"]
    if missing := [name for name in names if name not in weights]:
        raise ExportError(f"the checkpoint has no {missing[0]}: its last convolution cannot include the target scaling")
    weight, bias = (weights[name] for name in names)
    mean, std = (torch.tensor([getattr(n, k) for n in scaling.sizes], dtype=torch.float64) for k in ("mean", "std"))
    new_weight = weight.double() * std.view(-1, *(1,) * (weight.dim() - 1))
    new_bias = bias.double() * std + mean
    return dict(zip(names, (new_weight.to(weight.dtype), new_bias.to(bias.dtype)), strict=True))
