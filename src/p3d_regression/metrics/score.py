"""A metric as a training uses it: shown batch after batch, and asked in the end."""

import math
import reprlib
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from p3d_regression.components.configured import Configured
from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise
from p3d_regression.losses.criterion import check_shapes
from p3d_regression.losses.mask import Mask
from p3d_regression.losses.share import Share
from p3d_regression.metrics import merging, of_torchmetrics
from p3d_regression.metrics.metric import Accumulating, Metric
from p3d_regression.metrics.registry import registry

#: The section of a config.
PLACE = "eval_metric"

#: Voxels per axis of the patches that a metric is tried on, at most.
_TRIALS = (24, 96)


def resolve(section: Mapping[Any, object]) -> Configured[Metric]:
    """Return the metric that an ``eval_metric`` section stands for, with all arguments.

    Raises:
        ConfigError: it is not understood.
    """
    name = section.get("name")
    arguments = {str(key): value for key, value in section.items() if key != "name"}
    if not isinstance(name, str):
        fix = registry().example(PLACE, arguments)
        raise ConfigError(PLACE, f"{reprlib.repr(dict(section))} has no name.", fix)
    if (why := of_torchmetrics.torchmetrics_error()) and registry().get(name, PLACE) is None:
        own = ", ".join(name for each in registry().registrations() for name in each.component.names)
        raise ConfigError(
            f"{PLACE}.name",
            f"{reprlib.repr(name)} is not one of {own}; torchmetrics, which may have it, cannot be imported ({why}).",
            advise("install the torchvision that fits the installed torch, or `pip uninstall torchvision`"),
        )
    return registry().configured(name, arguments, PLACE)


def try_on(metric: Configured[Metric], shape: tuple[int, ...]) -> None:
    """Compute a metric once on patches of a shape (D, H, W), before a training has taken its time.

    Raises:
        ConfigError: it cannot be computed.
    """
    smallest, *larger = sorted({tuple(min(size, cap) for size in shape) for cap in _TRIALS})
    with metric.trial(f"of patches of {' x '.join(map(str, shape))} voxels"):
        try:
            _compute(metric, smallest)
        except Exception:
            # plugins may need more
            for capped in larger:
                with suppress(Exception):
                    return _compute(metric, capped)
            raise


def _compute(metric: Configured[Metric], shape: tuple[int, ...]) -> None:
    # inside the ranges that it declares, and as wide as a range that the config names
    width = float(metric.arguments.get("data_range") or 1.0)
    labels = width * torch.linspace(0.1, 0.9, math.prod(shape), device="cpu").reshape(1, 1, *shape)
    accumulated = Accumulated(metric, None)
    # nothing is said about these numbers
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        accumulated.add(0.9 * labels + 0.02 * width, labels)
        value = accumulated.value
    if not math.isfinite(value):
        raise ValueError(f"it is {value} of finite labels")


@dataclass
class Accumulated:
    """A metric over all batches that it has been shown, per channel.

    Attributes:
        gathered: from what this process has to what each process has; None if it is alone.
    """

    metric: Configured[Metric]
    mask: Mask | None
    gathered: "Callable[[Any], list[Any]] | None" = None
    _channels: list[Accumulating] = field(default_factory=list)
    _voxels: list[int] = field(default_factory=list)
    _values: list[float] | None = None

    def add(self, output: Tensor, label: Tensor) -> None:
        """Take in predictions and labels, both of shape (N, C, D, H, W)."""
        check_shapes(output, label)
        counts = None if self.mask is None else self.mask(label)
        output, label = (_exact(tensor) for tensor in (output, label))
        counts = None if counts is None else counts.to(output.device)
        while len(self._channels) < label.shape[1]:
            self._channels.append(_on(output.device, self.build()))
            self._voxels.append(0)
        for channel, metric in enumerate(self._channels):
            predicted, wanted = self._prepared(output, label, counts, channel)
            # some metrics cannot be shown nothing
            if wanted.numel():
                metric.update(predicted, wanted)
                self._voxels[channel] += wanted.numel()
        self._values = None

    def build(self) -> Accumulating:
        """The metric of one channel, which has been shown nothing."""
        with self.metric.trial():
            return self.metric.component.build(**self.metric.arguments)

    def _prepared(self, output: Tensor, label: Tensor, counts: Tensor | None, channel: int) -> tuple[Tensor, Tensor]:
        if self.metric.component.on == "patches":
            return _patches(output, channel), _patches(label, channel)
        if counts is None:
            return output[:, channel].reshape(-1), label[:, channel].reshape(-1)
        return output[:, channel][counts[:, channel]], label[:, channel][counts[:, channel]]

    @property
    def values(self) -> list[float]:
        """The metric of each channel; NaN where no voxel has counted."""
        if self._values is None:
            pairs = list(zip(self._channels, self._voxels, strict=True))
            if self.gathered is not None:
                pairs = merging.over_processes(pairs, self.gathered)
            self._values = [self._value(metric, voxels) for metric, voxels in pairs]
        return self._values

    def _value(self, metric: Accumulating, voxels: int) -> float:
        if not voxels:
            return math.nan
        try:
            return float(metric.compute())
        except ValueError:
            # of too few voxels to have one, such as R2 of a single one
            if voxels > 1:
                raise
            return math.nan

    @property
    def value(self) -> float:
        """The mean over the channels; NaN if nothing was shown."""
        return sum(self.values) / len(self.values) if self.values else math.nan


def _patches(tensor: Tensor, channel: int) -> Tensor:
    one = tensor[:, channel : channel + 1]
    # a plane is no volume of depth 1: windows would not fit into it
    return one.squeeze(2) if one.dim() == 5 and one.shape[2] == 1 else one


def _exact(tensor: Tensor) -> Tensor:
    """In double precision, in which sums over a whole validation lose nothing; not every device has it."""
    tensor = tensor.detach()
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _on(device: torch.device, metric: Any) -> Accumulating:
    """A metric on a device and in double precision, if it is torchmetrics'."""
    if hasattr(metric, "set_dtype"):
        metric = merging.alone(metric.to(device).set_dtype(torch.float64))
    found: Accumulating = metric
    return found


class Score:
    """The metric of pytorch-3dunet's trainer: called with output and labels, it returns a number.

    Left alone, that number is the metric of the batch, a tensor. Between :meth:`begin` and :meth:`end` it stands for
    the metric of all batches so far, also after pytorch-3dunet has averaged it: see :class:`Running`.

    Args:
        metric: what is computed.
        mask: which voxels count.
        predicted: from the number of output channels to those that predict the labels' channels.

    Attributes:
        gathered: as in :class:`Accumulated`.
        share: of the batch that it is shown next.
    """

    gathered: "Callable[[Any], list[Any]] | None" = None
    share: Share | None = None

    def __init__(
        self,
        metric: Configured[Metric],
        mask: Mask | None = None,
        predicted: Callable[[int], list[int]] = lambda channels: list(range(channels)),
    ) -> None:
        self.metric = metric
        self.mask = mask
        self.predicted = predicted
        self._stack: list[Accumulated] = []

    def __call__(self, output: Tensor, label: Tensor) -> "Running | Tensor":
        accumulated = self._stack[-1] if self._stack else self._new()
        chosen = self.predicted(output.shape[1])
        output = output if len(chosen) == output.shape[1] else output[:, chosen]
        # a process without patches takes part as well: all compute the next value together
        own = slice(None if self.share is None else self.share.own)
        accumulated.add(output[own], label[own])
        return Running(accumulated) if self._stack else torch.tensor(accumulated.value, dtype=torch.float64)

    def build(self) -> Accumulating:
        """The metric of one channel, which has been shown nothing."""
        return self._new().build()

    def _new(self) -> Accumulated:
        return Accumulated(self.metric, self.mask, self.gathered)

    def begin(self) -> None:
        """Forget nothing that is going on, and start anew inside it: a validation within an epoch of training."""
        self._stack.append(self._new())

    def end(self) -> None:
        """Go on with what was going on before."""
        self._stack.pop()

    @property
    def channels(self) -> list[float]:
        """The metric of each channel, of what has been shown since the last :meth:`begin`."""
        return self._stack[-1].values if self._stack else []

    def __repr__(self) -> str:
        return f"{self.metric}" + (f", without voxels labelled {self.mask}" if self.mask else "")


class Running:
    """Stands in pytorch-3dunet's running average, which sums up ``value * n`` and divides by the sum of ``n``.

    A mean over batches is not the metric of all voxels: not of R2, not of PSNR, not where voxels are masked. So this is
    what remains itself, whatever it is multiplied with, added to or divided by; and turns into the number when it is
    looked at.
    """

    def __init__(self, accumulated: Accumulated) -> None:
        self._accumulated = accumulated

    def item(self) -> "Running":
        return self

    def __float__(self) -> float:
        return self._accumulated.value

    def _itself(self, other: object) -> "Running":
        return self

    __mul__ = __rmul__ = __add__ = __radd__ = __truediv__ = _itself

    def __str__(self) -> str:
        return str(float(self))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)
