"""A loss of a config, looked up: what it needs of the output and of the labels, and in which units."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from p3d_regression.components.configured import Configured
from p3d_regression.interval import NON_NEGATIVE, Interval
from p3d_regression.labels.floor import VoxelLoss
from p3d_regression.losses.loss import Loss
from p3d_regression.losses.spec import CHANNELWISE, Spec


@dataclass(frozen=True)
class Resolved:
    """A loss of a config, looked up, with all arguments.

    Attributes:
        spec: what the config says.
        leaf: what that names; None for one that is made of others.
        parts: what it is made of.
    """

    spec: Spec
    leaf: Configured[Loss] | None = None
    parts: "tuple[Resolved, ...]" = ()

    @property
    def variance(self) -> bool:
        """Whether half of its outputs are variances."""
        return self.leaf.component.variance if self.leaf else self.spec.name != CHANNELWISE and self.parts[0].variance

    @property
    def leaves(self) -> Iterator[Configured[Loss]]:
        """The losses that it is made of in the end."""
        if self.leaf:
            yield self.leaf
        for part in self.parts:
            yield from part.leaves

    @property
    def has_variance(self) -> bool:
        """Whether some outputs are variances, and predict no channel of the labels."""
        return any(leaf.component.variance for leaf in self.leaves)

    @property
    def has_units(self) -> bool:
        """Whether some of its arguments are in the units of the labels."""
        return any(leaf.component.units for leaf in self.leaves)

    @property
    def widths(self) -> list[int]:
        """How many output channels each part has, if each part has its own."""
        return [2 if part.variance else 1 for part in self.parts]

    @property
    def output_channels(self) -> int | None:
        """How many channels the output must have; None if any number will do."""
        return sum(self.widths) if self.spec.name == CHANNELWISE else None

    def predicted(self, channels: int) -> list[int]:
        """Which of so many output channels predict the channels of the labels, in their order."""
        return [output for output, (_, is_variance) in enumerate(self.targets(channels)) if not is_variance]

    def targets(self, channels: int) -> list[tuple[int, bool]]:
        """For each of so many output channels the channel of the labels, and whether it is a variance of that."""
        if self.spec.name == CHANNELWISE:
            return [(index, nth == 1) for index, width in enumerate(self.widths) for nth in range(width)]
        means = channels // 2 if self.variance else channels
        return [(channel, False) if channel < means else (channel - means, True) for channel in range(channels)]

    def needs(self, channels: int) -> Iterator[tuple[int, Interval, Configured[Loss]]]:
        """For each of so many output channels the values that it can be given, and by which loss."""
        if self.spec.name == CHANNELWISE:
            for part, first, width in zip(self.parts, self.predicted(channels), self.widths, strict=True):
                yield from ((first + channel, interval, loss) for channel, interval, loss in part.needs(width))
            return
        for leaf in self.leaves:
            means = channels // 2 if leaf.component.variance else channels
            outputs = leaf.component.outputs_of(leaf.arguments)
            yield from ((channel, outputs, leaf) for channel in range(means))
            yield from ((channel, NON_NEGATIVE, leaf) for channel in range(means, channels))

    def labels(self, channels: int) -> Iterator[tuple[int, Interval, Configured[Loss]]]:
        """For each of so many channels of the labels the values that make sense, and for which loss."""
        if self.spec.name == CHANNELWISE:
            for channel, part in enumerate(self.parts):
                yield from ((channel, interval, loss) for _, interval, loss in part.labels(1))
            return
        for leaf in self.leaves:
            labels = leaf.component.labels_of(leaf.arguments)
            yield from ((channel, labels, leaf) for channel in range(channels))

    def units_differ(self, channels: int) -> str | None:
        """Why an output is not in the units of its label, such as a logit; None if it is."""
        targets = self.targets(channels)
        for channel, outputs, leaf in self.needs(channels):
            labels = leaf.component.labels_of(leaf.arguments)
            if not targets[channel][1] and outputs != labels:
                return f"{leaf} is given outputs in {outputs} for labels in {labels}"
        return None

    def least_variances(self, channels: int) -> dict[int, tuple[str, float]]:
        """For each of so many output channels that is a variance the smallest one that the loss takes.

        Returns:
            The key in the config that says so, and the variance, in the units of the labels squared.
        """
        found: dict[int, tuple[str, float]] = {}
        for channel, _, leaf in self.needs(channels):
            for name, unit in leaf.component.units.items():
                if unit == "variance" and self.targets(channels)[channel][1]:
                    here = (f"{leaf.place}.{name}", leaf.arguments.get(name) or 0.0)
                    found[channel] = max(here, found.get(channel, here), key=lambda least: least[1])
        return found

    def own_functions(self, channels: int) -> list[tuple[Configured[Loss], str, list[int]]]:
        """The losses that apply a function to the output before they compare it with the labels.

        Args:
            channels: of the output.

        Returns:
            For each: the loss, the function, and the output channels that it is applied to.
        """
        found: dict[int, tuple[Configured[Loss], str, list[int]]] = {}
        for channel, _, leaf in self.needs(channels):
            if applied := leaf.component.applied(leaf.arguments):
                found.setdefault(id(leaf), (leaf, applied, []))[2].append(channel)
        return list(found.values())

    @property
    def voxel_loss(self) -> VoxelLoss | None:
        """The loss of a voxel as a function of numpy arrays, if it is a function of the distance."""
        if self.leaf is None or self.leaf.component.voxel_loss is None or self.spec.weight != 1:
            return None
        return self.leaf.component.voxel_loss(self.leaf.arguments)

    def standardised(self, mean: float, std: float) -> "Resolved":
        """The same loss of labels that were shifted by ``-mean`` and divided by ``std``."""
        leaf = self.leaf
        if leaf:
            leaf = replace(leaf, arguments=leaf.component.standardised(leaf.arguments, mean, std))
        return replace(self, leaf=leaf, parts=tuple(part.standardised(mean, std) for part in self.parts))

    def __str__(self) -> str:
        """As a config says it, in one line."""
        if self.leaf:
            return str(self.leaf)
        parts = [f"{part.spec.weight:g} * {part}" if part.spec.weight != 1 else str(part) for part in self.parts]
        return f"{self.spec.name} [{', '.join(parts)}]"
