"""The last layer of a model, between its last convolution and its output: which one it is, and what it can predict."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p3d_regression.activations.spec import KEY
from p3d_regression.errors import Found
from p3d_regression.fix import delete, write
from p3d_regression.interval import REAL_LINE, UNIT, Interval
from p3d_regression.model.unet import attached, is_attached
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.upstream import introspection

if TYPE_CHECKING:
    from p3d_regression.activations.final import FinalActivation

#: Last layer of pytorch-3dunet's own, as ``final_activation`` names it -> the lines of a model section that build it.
UPSTREAM: dict[str, dict[str, bool]] = {
    "none": {"is_segmentation": False},
    "sigmoid": {"is_segmentation": True, "final_sigmoid": True},
    "softmax": {"is_segmentation": True, "final_sigmoid": False},
}


@dataclass(frozen=True)
class LastLayer:
    """The function between the last convolution of a model and its output.

    Attributes:
        name: as a config would say it.
        ranges: of the output, per channel.
        is_ours: whether ``final_activation`` says so; else pytorch-3dunet's own keys do.
    """

    name: str
    ranges: tuple[Interval, ...]
    is_ours: bool = False

    @property
    def is_segmentation(self) -> bool:
        return self.name in ("sigmoid", "softmax")


def last_layer(section: Mapping[str, Any], channels: int, final: "FinalActivation | None" = None) -> LastLayer:
    """The last layer of the model that a section of a config builds.

    Args:
        section: the section ``model``.
        channels: output channels of the model.
        final: what ``final_activation`` stands for, or a checkpoint brings in its place; None where neither does.
    """
    if final is not None:
        return LastLayer(str(final), final.ranges, is_ours=True)
    cls = introspection.model_class(section.get("name"))

    def is_true(key: str) -> bool:
        default = introspection.default(cls, key) if cls else None
        # as pytorch-3dunet's `if` takes it
        return bool(section.get(key, True if default is None else default))

    fitting = (name for name, keys in UPSTREAM.items() if all(is_true(key) is value for key, value in keys.items()))
    return _upstreams(next(fitting), channels)


def of_model(unet: Any, channel: int) -> LastLayer:
    """The last layer of a U-Net in one output channel."""
    if is_attached(unet):
        final = attached(unet)
        return LastLayer(str(final.entry(channel)), (final.ranges[channel],), is_ours=True)
    module = unet.final_activation
    layer = _upstreams("none" if module is None else type(module).__name__.lower(), unet.final_conv.out_channels)
    return LastLayer(layer.name, layer.ranges[:1])


def _upstreams(name: str, channels: int) -> LastLayer:
    interval = UNIT if name in ("sigmoid", "softmax") else REAL_LINE
    if name == "softmax" and channels == 1:
        interval = Interval(1.0, 1.0)  # exp(x) / exp(x)
    return LastLayer(name, (interval,) * channels)


def contradiction(section: Mapping[str, Any], final: "FinalActivation") -> Found | None:
    """What ``is_segmentation`` and ``final_sigmoid`` say against a final activation in the same section, if anything.

    Args:
        section: the section ``model``.
        final: the activation that it names.
    """
    upstreams = last_layer(section, final.channels).name
    keys = [key for key in ("is_segmentation", "final_sigmoid") if key in section]
    if final.plain == upstreams or upstreams == "none" or not keys:
        return None
    # json.dumps writes true and false as YAML does, and keeps the quotes of a "false" that is a text
    ignored = " and ".join(f"{key}: {json.dumps(section[key], default=repr)}" for key in keys)
    message = (
        f"{final} decides the model's output; {ignored} in the same section has no effect. Without p3d-regression, "
        f"pytorch-3dunet ignores {KEY} instead, and the same config builds a different model."
    )
    has_words = final.plain == "none" and SCALING not in section
    fix = write("model.is_segmentation", False) if has_words else delete(*(f"model.{key}" for key in keys))
    return Found(f"model.{KEY}", message, fix)
