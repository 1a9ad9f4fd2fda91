"""From the ``loss`` section of a config to the module that a training uses."""

import reprlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from p3d_regression.components.configured import Configured
from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise, delete, write
from p3d_regression.interval import NON_NEGATIVE, Interval
from p3d_regression.losses.criterion import Channelwise, Criterion, VoxelMean, WeightedSum, Whole
from p3d_regression.losses.loss import Loss
from p3d_regression.losses.mask import Mask, mask_of
from p3d_regression.losses.registry import known, registry
from p3d_regression.losses.resolved import Resolved
from p3d_regression.losses.spec import CHANNELWISE, COMPOSITES, WEIGHTED_SUM, WHOLE, Spec, composite_meant, parse
from p3d_regression.upstream import builders


def resolve(section: Mapping[Any, object], channels: int | None = None) -> Resolved:
    """Return the loss that a ``loss`` section stands for.

    Args:
        section: of the config.
        channels: output channels of the model; None if that is not known.

    Raises:
        ConfigError: it is not understood, or does not fit so many channels.
    """
    mask = mask_of(section.get("ignore_index"))
    if section.get("skip_last_target"):
        raise ConfigError(
            "loss.skip_last_target",
            "only pytorch-3dunet's own losses skip the last channel of the labels.",
            delete("loss.skip_last_target") + advise("delete that channel from the label volumes too"),
        )
    arguments = {key: value for key, value in section.items() if key not in ("skip_last_target", "squeeze_channel")}
    resolved = _resolve(parse(arguments))
    _check(resolved, channels)
    if mask is not None:
        _check_mask(resolved)
    return resolved


def _resolve(spec: Spec) -> Resolved:
    if spec.name in COMPOSITES:
        return Resolved(spec, parts=tuple(_resolve(part) for part in spec.parts))
    given = {key: value for key, value in spec.arguments.items() if (key, value) != ("reduction", "mean")}
    if (not spec.name or registry().get(spec.name, spec.place) is None) and (meant := composite_meant(spec)):
        why = f"{reprlib.repr(spec.name)} is not a known loss" if spec.name else "this loss has no name"
        raise ConfigError(f"{spec.place}.name", f"{why}; did you mean {meant[0]}?", meant[1])
    if not spec.name:
        raise ConfigError(spec.place, f"{reprlib.repr(given)} has no name.", registry().example(spec.place, given))
    return Resolved(spec, registry().configured(spec.name, given, spec.place))


def described(section: Mapping[str, Any]) -> Resolved | None:
    """Return what is known of the loss that pytorch-3dunet builds of a ``loss`` section; None if nothing is."""
    loss = known(section.get("name"))
    if loss is None or (built := builders.loss(section)).what is None:
        return None
    arguments = {name: p.default for name, p in loss.parameters.items() if not p.required}
    for name, parameter in loss.parameters.items():
        # what pytorch-3dunet does not read has its default, whatever the config says
        if section.get(name) is not None and name not in built.unread:
            with suppress(ValueError):
                arguments[name] = parameter.convert(section[name])
    leaf = Configured(loss, arguments, WHOLE)
    return Resolved(Spec(loss.name, WHOLE), leaf) if loss.parameters.keys() == arguments.keys() else None


def _check(resolved: Resolved, channels: int | None) -> None:
    _check_sums(resolved)
    wanted = resolved.output_channels
    if channels is None:
        return
    if wanted is not None and wanted != channels:
        raise ConfigError(
            f"{resolved.spec.place}.channels",
            f"its entries need {wanted} output channels, model.out_channels is {channels}. There is one entry for each "
            "channel of the labels; one with a variance has two output channels.",
            write("model.out_channels", wanted),
        )
    if resolved.variance and channels % 2:
        activations = ["none"] * channels + ["softplus"] * channels
        raise ConfigError(
            "loss.name",
            f"{resolved} needs a mean and a variance for each channel of the labels, model.out_channels is {channels}.",
            write("model.out_channels", 2 * channels) + write("model.final_activation", activations),
        )


def _check_sums(resolved: Resolved) -> None:
    others = [part for part in resolved.parts if part.variance != resolved.variance]
    if others and resolved.spec.name == WEIGHTED_SUM:
        raise ConfigError(
            others[0].spec.place,
            f"{others[0]} and the first loss of the sum have different numbers of outputs; a loss with a variance can "
            "only be added to others with a variance.",
            delete(*(part.spec.place for part in others)),
        )
    for part in resolved.parts:
        _check_sums(part)


def _check_mask(resolved: Resolved) -> None:
    for leaf in resolved.leaves:
        if not leaf.component.per_voxel:
            why = f"{leaf.component.name} is not a mean over voxels, so no voxels can be excluded from it."
            raise ConfigError("loss.ignore_index", why, delete("loss.ignore_index"))


def build(resolved: Resolved, mask: Mask | None = None) -> Criterion:
    """Build the module: (output, labels) or (output, labels, weights) to a number.

    Raises:
        ConfigError: its arguments contradict each other, or a plugin breaks a promise of :class:`Loss`.
    """
    leaf, own = resolved.leaf, resolved.spec.weight if resolved.spec.place == WHOLE else 1.0
    if leaf is None:
        parts = [build(part, mask) for part in resolved.parts]
        # a part is multiplied by the loss that it is a part of
        factors = [own * part.spec.weight for part in resolved.parts]
        return (Channelwise if resolved.spec.name == CHANNELWISE else WeightedSum)(parts, factors)
    loss = leaf.component
    with leaf.trial():
        module = loss.build(**leaf.arguments)
        criterion = VoxelMean(module, mask, variance=loss.variance) if loss.per_voxel else Whole(module)
        broken = _broken_promise(criterion, loss, leaf.arguments)
    if broken:
        raise leaf.refusal(f"cannot be a loss: {broken}")
    return criterion if own == 1 else WeightedSum([criterion], [own])


def _broken_promise(criterion: Criterion, loss: Loss, arguments: Mapping[str, Any]) -> str | None:
    """Try it on a few voxels inside the ranges that it declares."""
    outputs, labels = (_sample(interval) for interval in (loss.outputs_of(arguments), loss.labels_of(arguments)))
    if loss.variance:
        outputs = torch.cat([outputs, _sample(NON_NEGATIVE)], dim=1)
    outputs = outputs.requires_grad_()
    if loss.per_voxel:
        first, *rest = outputs.chunk(2, dim=1) if loss.variance else (outputs,)
        losses = criterion.loss(first, labels, *rest)  # type: ignore[operator]
        if losses.shape != labels.shape:
            return f"it makes the shape {tuple(losses.shape)} of {tuple(labels.shape)}, and needs a loss for each voxel"
        if loss.voxel_loss and not _agrees(loss, arguments, criterion, labels):
            return "its voxel_loss and its module give different values"
    value = criterion(outputs, labels)
    if value.dim() != 0:
        return f"it returns the shape {tuple(value.shape)}, not one number"
    if not value.isfinite():
        return f"it is {value.item():g} inside the ranges of outputs and labels that it declares"
    if not value.requires_grad:
        return "it has no gradient"
    return None


def _agrees(loss: Loss, arguments: Mapping[str, Any], criterion: Criterion, labels: torch.Tensor) -> bool:
    """Whether a module's losses are those that the floor would be computed from, as far as a few voxels show."""
    assert loss.voxel_loss is not None
    voxel_loss, interval = loss.voxel_loss(arguments), loss.outputs_of(arguments)
    # as far from the labels as its outputs may be
    outputs = (labels.flip(-1) + 1).clamp(interval.low, interval.high)
    losses = criterion.loss(outputs, labels)  # type: ignore[operator]
    wanted = voxel_loss.of_distance((outputs - labels).abs().numpy())
    factor = voxel_loss.factor(labels.numpy()) if voxel_loss.factor else 1.0
    return torch.allclose(losses, torch.as_tensor(wanted * factor, dtype=losses.dtype), rtol=1e-4)


def _sample(interval: Interval) -> torch.Tensor:
    """A few values of an interval, shape (1, 1, 2, 8, 8)."""
    low = max(interval.low, min(interval.high, 1.0) - 1.0, -1e30)
    high = min(interval.high, low + 1.0)
    inside = torch.linspace(0.05, 0.95, 128, device="cpu").reshape(1, 1, 2, 8, 8)
    return low + (high - low) * inside
