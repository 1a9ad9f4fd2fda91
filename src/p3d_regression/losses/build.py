"""From the ``loss`` section of a config to the module that a training uses."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from p3d_regression.components.configured import Configured
from p3d_regression.errors import ConfigError
from p3d_regression.interval import NON_NEGATIVE, Interval
from p3d_regression.labels.floor import VoxelLoss
from p3d_regression.losses.criterion import Channelwise, Criterion, VoxelMean, WeightedSum, Whole
from p3d_regression.losses.loss import Loss
from p3d_regression.losses.mask import Mask, mask_of
from p3d_regression.losses.registry import known, registry
from p3d_regression.losses.spec import CHANNELWISE, COMPOSITES, EXAMPLES, WEIGHTED_SUM, WHOLE, Spec, parse
from p3d_regression.upstream import builders


@dataclass(frozen=True)
class Resolved:
    """A loss of a config, looked up, with all arguments.

    Attributes:
        spec: what the config says.
        loss: what that names; None for one that is made of others.
        arguments: all of the constructor.
        parts: what it is made of.
        plugin: distribution, with version, of the plugin it comes from.
    """

    spec: Spec
    loss: Loss | None
    arguments: Mapping[str, Any]
    parts: "tuple[Resolved, ...]" = ()
    plugin: str | None = None

    @property
    def variance(self) -> bool:
        """Whether half of its outputs are variances."""
        return self.loss.variance if self.loss else self.spec.name != CHANNELWISE and self.parts[0].variance

    @property
    def leaves(self) -> "Iterator[Resolved]":
        """The losses that it is made of in the end."""
        if self.loss:
            yield self
        for part in self.parts:
            yield from part.leaves

    @property
    def has_variance(self) -> bool:
        """Whether some outputs are variances, and predict no channel of the labels."""
        return any(leaf.variance for leaf in self.leaves)

    @property
    def widths(self) -> list[int]:
        """How many output channels each part has, if each part has its own."""
        return [2 if part.variance else 1 for part in self.parts]

    def predicted(self, channels: int) -> list[int]:
        """Which of so many output channels predict the channels of the labels, in their order."""
        return [output for output, (_, is_variance) in enumerate(self.targets(channels)) if not is_variance]

    def targets(self, channels: int) -> list[tuple[int, bool]]:
        """For each of so many output channels the channel of the labels, and whether it is a variance of that."""
        if self.spec.name == CHANNELWISE:
            return [(index, nth == 1) for index, width in enumerate(self.widths) for nth in range(width)]
        means = channels // 2 if self.variance else channels
        return [(channel, False) if channel < means else (channel - means, True) for channel in range(channels)]

    def least_variances(self, channels: int) -> dict[int, float]:
        """The smallest variance that is taken, in the units of the labels squared, for each output that is one."""
        found: dict[int, float] = {}
        for channel, _, leaf in self.needs(channels):
            assert leaf.loss is not None
            for name, unit in leaf.loss.units.items():
                if unit == "variance" and self.targets(channels)[channel][1]:
                    found[channel] = max(leaf.arguments[name], found.get(channel, 0.0))
        return found

    @property
    def voxel_loss(self) -> VoxelLoss | None:
        """The loss of a voxel as a function of numpy arrays, if it is a function of the distance."""
        given = self.loss and self.loss.voxel_loss
        return given(self.arguments) if given and self.spec.weight == 1 else None

    def own_functions(self, channels: int) -> "list[tuple[Resolved, Loss, str, list[int]]]":
        """The losses that apply a function to the output before they compare it with the labels.

        Args:
            channels: of the output.

        Returns:
            For each: as configured, what is known of it, the function, and the output channels that it is applied to.
        """
        found: dict[int, tuple[Resolved, Loss, str, list[int]]] = {}
        for channel, _, leaf in self.needs(channels):
            if leaf.loss and (applied := leaf.loss.applied(leaf.arguments)):
                found.setdefault(id(leaf), (leaf, leaf.loss, applied, []))[3].append(channel)
        return list(found.values())

    @property
    def has_units(self) -> bool:
        """Whether some of its arguments are in the units of the labels."""
        return any(leaf.loss and leaf.loss.units for leaf in self.leaves)

    def standardised(self, mean: float, std: float) -> "Resolved":
        """The same loss of labels that were shifted by ``-mean`` and divided by ``std``."""
        arguments = self.loss.standardised(self.arguments, mean, std) if self.loss else self.arguments
        return replace(self, arguments=arguments, parts=tuple(part.standardised(mean, std) for part in self.parts))

    def units_differ(self, channels: int) -> str | None:
        """Why an output is not in the units of its label, such as a logit; None if it is."""
        targets = self.targets(channels)
        for channel, outputs, leaf in self.needs(channels):
            _, is_variance = targets[channel]
            assert leaf.loss is not None
            labels = leaf.loss.labels_of(leaf.arguments)
            if not is_variance and outputs != labels:
                return f"{leaf} is given outputs in {outputs} for labels in {labels}"
        return None

    @property
    def output_channels(self) -> int | None:
        """How many channels the output must have; None if that is not said."""
        return sum(self.widths) if self.spec.name == CHANNELWISE else None

    def needs(self, channels: int) -> "Iterator[tuple[int, Interval, Resolved]]":
        """For each of so many output channels the values that it can be given, and by which loss."""
        if self.spec.name == CHANNELWISE:
            for part, first, width in zip(self.parts, self.predicted(channels), self.widths, strict=True):
                yield from ((first + channel, interval, loss) for channel, interval, loss in part.needs(width))
            return
        for leaf in self.leaves:
            assert leaf.loss is not None
            means = channels // 2 if leaf.variance else channels
            yield from ((channel, leaf.loss.outputs_of(leaf.arguments), leaf) for channel in range(means))
            yield from ((channel, NON_NEGATIVE, leaf) for channel in range(means, channels))

    def labels(self, channels: int) -> "Iterator[tuple[int, Interval, Resolved]]":
        """For each of so many channels of the labels the values that make sense, and for which loss."""
        if self.spec.name == CHANNELWISE:
            for channel, part in enumerate(self.parts):
                yield from ((channel, interval, loss) for _, interval, loss in part.labels(1))
            return
        for leaf in self.leaves:
            assert leaf.loss is not None
            yield from ((channel, leaf.loss.labels_of(leaf.arguments), leaf) for channel in range(channels))

    def __str__(self) -> str:
        """As a config would say it, in one line."""
        if self.loss:
            return str(Configured(self.loss, self.arguments, self.spec.place))
        parts = [f"{part.spec.weight:g} * {part}" if part.spec.weight != 1 else str(part) for part in self.parts]
        return f"{self.spec.name} [{', '.join(parts)}]"


def resolve(section: Mapping[Any, object], channels: int | None = None) -> Resolved:
    """Return the loss that a ``loss`` section stands for.

    Args:
        section: of the config.
        channels: output channels of the model; None if that is not known.

    Raises:
        ConfigError: it is not understood, or makes no sense with so many channels.
    """
    mask = mask_of(section.get("ignore_index"))
    if section.get("skip_last_target"):
        raise ConfigError(
            "loss.skip_last_target: only upstream's own losses leave out the last channel of the labels. Delete the "
            "line, and that channel from the label volumes."
        )
    arguments = {key: value for key, value in section.items() if key not in ("skip_last_target", "squeeze_channel")}
    resolved = _resolve(parse(arguments))
    _check(resolved, channels)
    if mask is not None:
        _check_mask(resolved)
    return resolved


def _resolve(spec: Spec) -> Resolved:
    if spec.name in COMPOSITES:
        return Resolved(spec, None, {}, tuple(_resolve(part) for part in spec.parts))
    given = {key: value for key, value in spec.arguments.items() if (key, value) != ("reduction", "mean")}
    found = registry().configured(spec.name, given, spec.place)
    return Resolved(spec, found.component, found.arguments, plugin=found.plugin)


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
    return Resolved(Spec(loss.name, WHOLE), loss, arguments) if loss.parameters.keys() == arguments.keys() else None


def _check(resolved: Resolved, channels: int | None) -> None:
    _check_sums(resolved)
    wanted = resolved.output_channels
    if channels is None:
        return
    if wanted is not None and wanted != channels:
        raise ConfigError(
            f"{resolved.spec.place}.channels: its entries need {wanted} output channels, model.out_channels is "
            f"{channels}. Write one entry per channel of the labels; one with a variance has two output channels. "
            f"Example:\n{EXAMPLES[CHANNELWISE]}"
        )
    if resolved.variance and channels % 2:
        raise ConfigError(
            f"loss.name: {resolved} needs a mean and a variance for each channel of the labels, model.out_channels is "
            f"{channels}. For labels with one channel write:\n  model:\n    out_channels: 2\n"
            "    final_activation: [none, softplus]"
        )


def _check_sums(resolved: Resolved) -> None:
    for part in resolved.parts:
        if resolved.spec.name == WEIGHTED_SUM and part.variance != resolved.variance:
            raise ConfigError(
                f"{part.spec.place}: {part} has another number of outputs than the first loss of the sum; losses with "
                "a variance can be added to each other only."
            )
        _check_sums(part)


def _check_mask(resolved: Resolved) -> None:
    for leaf in resolved.leaves:
        assert leaf.loss is not None
        if not leaf.loss.per_voxel:
            raise ConfigError(
                f"loss.ignore_index: {leaf.loss.name} is not a mean over voxels, and cannot leave any out. Delete the "
                f"line, or choose another loss (see `p3d-regression losses`)."
            )


def build(resolved: Resolved, mask: Mask | None = None) -> Criterion:
    """Build the module: (output, labels) or (output, labels, weights) to a number.

    Raises:
        ConfigError: its arguments make no sense together, or a plugin breaks a promise of :class:`Loss`.
    """
    if resolved.spec.name in COMPOSITES:
        parts = [build(part, mask) for part in resolved.parts]
        # a part is multiplied by what it is a part of
        own = resolved.spec.weight if resolved.spec.place == WHOLE else 1.0
        factors = [own * part.spec.weight for part in resolved.parts]
        return (Channelwise if resolved.spec.name == CHANNELWISE else WeightedSum)(parts, factors)
    loss = resolved.loss
    assert loss is not None
    leaf = Configured(loss, resolved.arguments, resolved.spec.place, resolved.plugin)
    with leaf.trial():
        module = loss.build(**resolved.arguments)
        criterion = VoxelMean(module, mask, variance=loss.variance) if loss.per_voxel else Whole(module)
        broken = _broken_promise(criterion, loss, resolved.arguments)
    if broken:
        raise leaf.refusal(f"cannot be a loss: {broken}")
    if resolved.spec.place == WHOLE and resolved.spec.weight != 1:
        return WeightedSum([criterion], [resolved.spec.weight])
    return criterion


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
        if loss.voxel_loss and not _agrees(loss.voxel_loss(arguments), criterion, labels):
            return "its voxel_loss is another function than its module"
    value = criterion(outputs, labels)
    if value.dim() != 0:
        return f"it returns the shape {tuple(value.shape)}, not one number"
    if not value.isfinite():
        return f"it is {value.item():g} inside the ranges of outputs and labels that it declares"
    if not value.requires_grad:
        return "it has no gradient"
    return None


def _agrees(voxel_loss: VoxelLoss, criterion: Criterion, labels: torch.Tensor) -> bool:
    """Whether a module's losses are those that the floor would be computed from, as far as a few voxels show."""
    outputs = labels.flip(-1) + 1
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
