"""The decisions: each is a function from what is known to lines of a config, with the reason for each line."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from p3d_regression.checks.rules.values import fill_of
from p3d_regression.planning.fingerprint import Fingerprint, Values
from p3d_regression.planning.machine import Machine
from p3d_regression.planning.plan import Line
from p3d_regression.planning.size import Size
from p3d_regression.planning.task import LEAST_LINE, Task
from p3d_regression.text import as_size
from p3d_regression.upstream.datasets import patches_along

#: Of the labels of a channel, what is at a bound that is meant.
_SHARE_AT_BOUND = 0.001

#: How much larger the standard deviation of a channel is, from which each channel has its own weight.
_APART = 3.0


@dataclass(frozen=True)
class Files:
    """The files of a training.

    Attributes:
        train, val, test: paths.
        train_shapes: (Z, Y, X) of each volume of the training.
        raw, label: names of the datasets.
        dataset: class that reads them.
        why_dataset: it does.
        why_split: into these.
        why_test: these are predicted.
    """

    train: Sequence[str]
    val: Sequence[str]
    test: Sequence[str]
    train_shapes: Sequence[tuple[int, ...]]
    raw: str
    label: str
    dataset: str
    why_dataset: str
    why_split: str
    why_test: str


@dataclass(frozen=True)
class Facts:
    """All that decides a config.

    Attributes:
        found: what the volumes hold.
        task: of the network.
        size: of patches and network.
        machine: that trains.
        files: of the phases.
        out: directory of what is written.
        iterations: asked for; None for a number that fits the volumes.
    """

    found: Fingerprint
    task: Task
    size: Size
    machine: Machine
    files: Files
    out: Path = Path()
    iterations: int | None = None

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return outputs_of(self.found, self.task)

    @property
    def fill(self) -> float | None:
        """The number that stands where there is no label; None if there seems to be none."""
        if self.task.kind == "counts" and all(values.moments.low == 0 for values in self.found.label):
            return None
        return next((fill for v in self.found.label if (fill := fill_of(v.moments)) is not None), None)

    @cached_property
    def labels(self) -> list[Values]:
        """The values of each channel of the labels that count."""
        return [values.without(self.fill) for values in self.found.label]

    @property
    def patches(self) -> int:
        """Patches of an epoch."""
        stride = strides(self)
        return sum(
            math.prod(patches_along(n, p, s) for n, p, s in zip(shape, self.size.patch, stride, strict=True))
            for shape in self.files.train_shapes
        )


def outputs_of(found: Fingerprint, task: Task) -> int:
    """Channels of the output: those of the labels, and their variances."""
    return len(found.label) * (2 if task.kind == "mean+variance" else 1)


Decision = Callable[[Facts], Iterator[Line]]


def reproducibility(facts: Facts) -> Iterator[Line]:
    yield Line("manual_seed", 0, "the same random numbers in each run")
    why = {
        "cuda": "this machine has a GPU",
        "mps": "this machine has a GPU of Apple",
        "cpu": "there is no GPU here; on a machine with one, run init there, because patches and network can be larger",
    }
    yield Line("device", facts.machine.device, why[facts.machine.device])


def network(facts: Facts) -> Iterator[Line]:
    size, raws = facts.size, len(facts.found.raw)
    why = "planes are treated one by one, because there are fewer than 4" if size.is_2d else "the standard U-Net"
    yield Line("model.name", "UNet2D" if size.is_2d else "UNet3D", why)
    yield Line("model.in_channels", raws, _of_raw(raws))
    labels = len(facts.found.label)
    why = f"the labels have {labels} channel{'s' if labels > 1 else ''}"
    why += ", and each has a mean and a variance" if facts.outputs > labels else ""
    yield Line("model.out_channels", facts.outputs, why)
    short = min(size.patch[1:] if size.is_2d else size.patch)
    levels = len(size.f_maps)
    yield Line(
        "model.f_maps",
        size.f_maps,
        f"{levels} levels: the shortest side of a patch, {short}, becomes {short // 2 ** (levels - 1)} at the last one",
    )
    yield Line("model.layer_order", "gcr", "GroupNorm, convolution, ReLU: the default of pytorch-3dunet")
    yield Line("model.num_groups", 8, "of GroupNorm; a divisor of each of f_maps")


def _of_raw(raws: int) -> str:
    return f"the raw volumes have {raws} channel{'s' if raws > 1 else ''}"


def output(facts: Facts) -> Iterator[Line]:
    """The last layer and its scaling."""
    channels = [_output(facts, channel) for channel in range(len(facts.found.label))]
    if facts.task.kind == "mean+variance":
        # a variance follows the mean
        channels += [("softplus", "standardize", "a variance is above 0", "")] * len(channels)
    activations, scalings = [c[0] for c in channels], [c[1] for c in channels]
    if facts.task.kind == "vectors" and facts.found.directions.are_units:
        yield Line("model.final_activation", "unit_vector", "the labels are vectors of length 1")
        return
    whys = list(dict.fromkeys(c[2] for c in channels if c[2]))
    yield Line("model.final_activation", _joined(activations), "; ".join(whys))
    if any(scaling != "none" for scaling in scalings):
        whys = list(dict.fromkeys(c[3] for c in channels if c[3]))
        yield Line("model.target_scaling", _joined(scalings), "; ".join(whys))


def _joined(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else values


def _output(facts: Facts, channel: int) -> tuple[Any, Any, str, str]:
    """Activation and scaling of a channel of the labels, and the reasons."""
    values = facts.labels[channel]
    if values.is_mask:
        return "sigmoid", "none", "a mask is between 0 and 1", ""
    unbounded = "labels of any value"
    of_what = "the network learns standardised labels, and predicts them in their units"
    if facts.task.follows:
        best, explained = facts.found.best_raw(channel)
        term: Any = "residual" if best == 0 or len(facts.found.raw) == len(facts.found.label) else None
        term = term or {"name": "residual", "in_channel": best}
        if explained > LEAST_LINE:
            return "none", term, "the output follows the raw volume", f"raw volume + correction: {facts.task.why}"
    if facts.task.kind == "mean+variance" or _is_far_from_0(values):
        return "none", "standardize", unbounded, of_what
    low, high = _bounds(values)
    if (low, high) == (0, 1):
        return "sigmoid", "none", "the labels fill the range 0 to 1", ""
    if low >= 0:
        return "softplus", "standardize", "the labels are 0 and above", of_what
    return "none", "standardize", unbounded, of_what


def _is_far_from_0(values: Values) -> bool:
    """Whether the mean is so far away that a bound at 0 is of little use, and a training starts far from it.

    A softplus of standardised labels begins at 0.7 standard deviations.
    """
    return values.moments.std > 0 and abs(values.moments.mean) > 1.5 * values.moments.std


def _bounds(values: Values) -> tuple[float, float]:
    """The smallest label, and the bound above; infinity where there is none."""
    m = values.moments
    # that no label is above 1 is chance, if hardly one is near it
    fills = m.at_high > _SHARE_AT_BOUND * m.finite
    return m.low, (1 if m.high == 1 and fills and not values.are_whole else math.inf)


def loss(facts: Facts) -> Iterator[Line]:
    labels = facts.labels
    if facts.task.kind == "mean+variance":
        yield Line("loss.name", "GaussianNLLLoss", "mean and variance of each voxel")
    elif (entries := _by_channel(facts)) is not None:
        yield Line("loss.name", "channelwise", "a loss for each channel, weighted by 1 / variance of its labels")
        yield Line("loss.channels", entries)
    elif all(values.is_mask for values in labels):
        yield Line("loss.name", "BCELoss", "the labels are masks")
    elif any(values.has_outliers for values in labels):
        delta = float(f"{max(values.moments.std for values in labels):.2g}")
        yield Line("loss.name", "HuberLoss", "some labels are very far from the others: they count less")
        yield Line("loss.delta", delta, "in units of the labels: their standard deviation")
    else:
        yield Line("loss.name", "MSELoss", "squared error: the prediction is the mean of what is possible")
    if any(values.moments.nan for values in labels):
        share = max(values.share_of_nan for values in labels)
        yield Line("loss.ignore_index", math.nan, f"{share:.1%} of the labels are NaN: these voxels do not count")
    elif facts.fill is not None:
        yield Line("loss.ignore_index", facts.fill, "stands where there is no label: these voxels do not count")


def _by_channel(facts: Facts) -> list[dict[str, Any]] | None:
    """Losses of channels that are not alike; None if they are."""
    labels = facts.labels
    masks = [values.is_mask for values in labels]
    stds = [values.moments.std for values, is_mask in zip(labels, masks, strict=True) if not is_mask]
    is_mixed = len(labels) > 1 and any(masks) and bool(stds)
    if not is_mixed and (len(stds) < 2 or max(stds) < _APART * min(stds) or facts.found.directions.are_units):
        return None
    unit = 1.0 if is_mixed else min(stds) ** 2
    return [
        {"name": "BCELoss"} if is_mask else {"name": "MSELoss", "weight": float(f"{unit / values.moments.std**2:.3g}")}
        for values, is_mask in zip(labels, masks, strict=True)
    ]


def metric(facts: Facts) -> Iterator[Line]:
    yield Line(
        "eval_metric.name",
        "R2Score",
        "1 is perfect, 0 is a constant guess; it selects best_checkpoint. p3d-regression metrics lists others",
    )


def optimizer(facts: Facts) -> Iterator[Line]:
    yield Line("optimizer.name", "Adam")
    yield Line("optimizer.learning_rate", 0.001, "with it, target scaling was measured to need the fewest iterations")
    yield Line("lr_scheduler.name", "ReduceLROnPlateau", "a smaller step when the score no longer improves")
    yield Line("lr_scheduler.factor", 0.5)
    yield Line("lr_scheduler.patience", 10, "validations")


def trainer(facts: Facts) -> Iterator[Line]:
    per_epoch = max(1, math.ceil(facts.patches / facts.size.batch))
    is_slow = facts.machine.device == "cpu"
    low, high = (1000, 10_000) if is_slow else (5000, 100_000)
    many = facts.iterations or min(max(50 * per_epoch, low), high)
    every = min(max(per_epoch, many // 50, 10), max(1, many // 4))
    yield Line("trainer.checkpoint_dir", str(facts.out / "checkpoints"))
    yield Line("trainer.max_num_epochs", 1_000_000, "the iterations decide")
    epochs = many / per_epoch
    why = f"{epochs:.3g} epochs of {facts.patches} patches" + (", as asked for" if facts.iterations else "")
    yield Line("trainer.max_num_iterations", many, why)
    yield Line("trainer.validate_after_iters", every, f"{many // every} validations; each writes a checkpoint")
    yield Line("trainer.log_after_iters", every)
    if facts.machine.has_bf16:
        yield Line("trainer.precision", "bf16-mixed", "this GPU is faster with it; the last layer stays in float32")


def loaders(facts: Facts) -> Iterator[Line]:
    files, size = facts.files, facts.size
    yield Line("loaders.dataset", files.dataset, files.why_dataset)
    workers = facts.machine.workers
    yield Line("loaders.num_workers", workers, "processes that read and transform patches")
    yield Line("loaders.batch_size", size.batch, f"patches; a training step takes about {as_size(size.memory)}")
    yield Line("loaders.raw_internal_path", files.raw, f"shape {_axes(len(facts.found.raw))}")
    yield Line("loaders.label_internal_path", files.label, f"shape {_axes(len(facts.found.label))}")
    for phase, paths, stride in (("train", files.train, strides(facts)), ("val", files.val, size.patch)):
        start = f"loaders.{phase}"
        yield Line(f"{start}.file_paths", list(paths), files.why_split if phase == "train" else "")
        yield from slices(size, stride, phase)
        yield from transforms(facts, phase)


def _axes(channels: int) -> str:
    return "(C, Z, Y, X)" if channels > 1 else "(Z, Y, X)"


def strides(facts: Facts) -> list[int]:
    """Of training patches: half a patch where volumes are few, so that there are more of them."""
    voxels = sum(math.prod(shape) for shape in facts.files.train_shapes)
    if voxels > 500 * math.prod(facts.size.patch):
        return list(facts.size.patch)
    return [max(1, p // 2) for p in facts.size.patch]


def slices(size: Size, stride: Sequence[int], phase: str) -> Iterator[Line]:
    """The patches of a phase."""
    start = f"loaders.{phase}.slice_builder"
    yield Line(f"{start}.name", "SliceBuilder")
    why = f"(Z, Y, X): {size.limit}" if phase == "train" else "as in training"
    yield Line(f"{start}.patch_shape", list(size.patch), why)
    is_half = list(stride) != list(size.patch)
    yield Line(
        f"{start}.stride_shape", list(stride), "half a patch: more patches" if is_half else "patches do not overlap"
    )
    if size.is_small:
        yield Line(f"{start}.skip_shape_check", True, "pytorch-3dunet wants 64 and more; the volumes are smaller")


def transforms(facts: Facts, phase: str) -> Iterator[Line]:
    """Normalisation of raw patches by fixed numbers, and augmentation that is right for the labels."""
    random, why = augmentation(facts) if phase == "train" else ([], "")
    raw = [*normalisation(facts.found), *random, _tensor(len(facts.found.raw))]
    yield Line(
        f"loaders.{phase}.transformer.raw",
        raw,
        "mean and std of the raw volumes: the same numbers for each patch, so that bright stays bright"
        if phase == "train"
        else "the same without what is random",
    )
    label = [*random, _tensor(len(facts.found.label))]
    yield Line(f"loaders.{phase}.transformer.label", label, f"labels keep their units{why}" if phase == "train" else "")


def _tensor(channels: int) -> dict[str, Any]:
    return {"name": "ToTensor", "expand_dims": channels == 1}


def normalisation(found: Fingerprint) -> list[dict[str, Any]]:
    """Fixed numbers; one for each channel where these are far apart."""
    means = [values.moments.mean for values in found.raw]
    stds = [values.moments.std or 1.0 for values in found.raw]
    if len(means) == 1 or (max(stds) < _APART * min(stds) and max(means) - min(means) < min(stds)):
        n = len(means)
        mean = sum(means) / n
        std = math.sqrt(sum(s * s + (m - mean) ** 2 for m, s in zip(means, stds, strict=True)) / n)
        return [{"name": "Standardize", "mean": _number(mean), "std": _number(std)}]
    # numpy broadcasts (C, 1, 1, 1)
    by_channel = [[[[[_number(value)]]] for value in values] for values in (means, stds)]
    return [{"name": "Standardize", "mean": by_channel[0], "std": by_channel[1]}]


def _number(value: float) -> float:
    """Five digits, and never a whole number of YAML: integers would be subtracted in the type of the volume."""
    return float(f"{value:.5g}")


def augmentation(facts: Facts) -> tuple[list[dict[str, Any]], str]:
    """Random transforms that are right for the labels, and why."""
    if facts.task.kind == "vectors":
        return [], "; no flips, which would turn voxels but not the vectors in them"
    if facts.size.patch[1] == facts.size.patch[2]:
        return [{"name": "RandomFlip"}, {"name": "RandomRotate90"}], ""
    return [{"name": "RandomFlip"}], ""


#: In the order of the config.
DECISIONS: tuple[Decision, ...] = (reproducibility, network, output, loss, metric, optimizer, trainer, loaders)


def training(facts: Facts) -> list[Line]:
    """All lines of a training config."""
    return [line for decide in DECISIONS for line in decide(facts)]
