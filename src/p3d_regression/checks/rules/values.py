"""Rules about what the values of labels and raw volumes say of their origin: fill values, units, empty exports."""

import math
from collections.abc import Iterator

from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.labels import in_channel, label_channels
from p3d_regression.checks.rules.transforms import steps_of
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import advise, write
from p3d_regression.labels.moments import Moments
from p3d_regression.upstream import transforms

family = Family()

#: Share of the voxels from which one number is worth a word.
_LEAST_SHARE = 0.005

#: Numbers that programs write where there is no value, besides those that are farther away than all others.
_FILLS = (-1.0, -99.0, -999.0, -9999.0, -32768.0, 32767.0, 65535.0)


def fill_of(found: Moments) -> float | None:
    """The number that stands where there is no value; None if there seems to be none.

    It is far away from all others, or one that programs use for it.
    """
    if not found.finite or found.low == found.high:
        return None
    ends = (
        (found.low, found.second_low, found.high, found.at_low),
        (found.high, found.second_high, found.low, found.at_high),
    )
    for value, nearest, farthest, count in ends:
        gap, rest = abs(value - nearest), abs(nearest - farthest)
        share = count / found.finite
        # two values are a mask, whatever they are
        if share < _LEAST_SHARE or share > 1 - _LEAST_SHARE / 100 or not rest or not gap:
            continue
        is_usual = value in _FILLS and (gap >= 0.5 * rest or (value == -1.0 and nearest >= 0))
        if gap > rest or is_usual:
            return value
    return None


@family.rule("P3D510", "warning", needs="volumes")
def fill_value(view: View) -> Iterator[Found]:
    """Many voxels have one number that is far from all others, such as -9999 or 65535: a program has written it where
    there is no value. The network learns to predict it, a mean and a standard deviation are mostly those of this
    number, and all scores are about it. With `ignore_index` these voxels do not count. A metric of this project leaves
    them out as well.

    Example:
        loaders:
          label_internal_path: label_with_fill

    Use instead:
        loss:
          ignore_index: -9999.0
        loaders:
          label_internal_path: label_with_fill
    """
    if not view.is_regression:
        return
    said: set[float] = set()
    for name, phase, channel, labels in label_channels(view):
        value = fill_of(labels)
        if value is None or value in said or value == view.get("loss.ignore_index"):
            continue
        said.add(value)
        others = f"{labels.second_low:.6g} to {labels.high:.6g}"
        if value == labels.high:
            others = f"{labels.low:.6g} to {labels.second_high:.6g}"
        share = (labels.at_low if value == labels.low else labels.at_high) / labels.finite
        where = in_channel(phase, channel)
        message = (
            f"{share:.1%} of the labels of {name}{where} are {value:.9g}, the others {others}: if that stands for "
            "voxels without a label, write it as loss.ignore_index"
        )
        yield Found("loss.ignore_index", message, write("loss.ignore_index", value))


@family.rule("P3D511", "error", needs="volumes")
def labels_constant(view: View) -> Iterator[Found]:
    """All labels of the training have one value: an empty export, a wrong dataset, a mask of nothing. The loss becomes
    very small, and the network predicts that value everywhere.

    Example:
        loaders:
          label_internal_path: zero

    Use instead:
        loaders:
          label_internal_path: label
    """
    if not view.is_regression or (view.scaling is not None and view.scaling.is_measured):
        return
    for name, phase, channel, labels in label_channels(view):
        if name == "train" and labels.finite and labels.low == labels.high:
            where = f", channel {channel}," if phase.statistics and len(phase.statistics.channels) > 1 else ""
            message = f"the labels of train{where} are {labels.low:.6g} in every voxel: there is nothing to learn"
            advice = advise(f"look at {phase.label_path} of the files of loaders.train, and at label_internal_path")
            yield Found("loaders.label_internal_path", message, advice)


@family.rule("P3D512", "error", modes=BOTH, needs="volumes")
def raw_constant(view: View) -> Iterator[Found]:
    """All raw volumes of a phase have one value in every voxel: the network sees nothing.

    Example:
        loaders:
          raw_internal_path: zero

    Use instead:
        loaders:
          raw_internal_path: raw
    """
    for name, phase in view.phases.items():
        read = [file.raw_moments for file in phase.files if file.raw_moments and file.raw_moments.finite]
        if read and len(read) == len(phase.files) and all(found.low == found.high for found in read):
            message = f"the raw volumes of {name} are {read[0].low:.6g} in every voxel: there is nothing to see"
            advice = advise(f"look at {phase.raw_path} of the files of loaders.{name}, and at raw_internal_path")
            yield Found("loaders.raw_internal_path", message, advice)


@family.rule("P3D513", "warning", needs="volumes")
def phases_in_other_units(view: View) -> Iterator[Found]:
    """Training and validation have values of another size: other units, another export, another normalisation. The
    validation then says nothing of the training, and best_checkpoint is chosen by it.

    Example:
        loaders:
          label_internal_path: in_other_units

    Use instead:
        loaders:
          label_internal_path: label
    """
    for kind, by_phase in (("labels", _labels(view)), ("raw volumes", _raws(view))):
        train, val = by_phase.get("train", []), by_phase.get("val", [])
        for channel, (one, other) in enumerate(zip(train, val, strict=False)):
            if fill_of(one) is None and fill_of(other) is None and _are_apart(one, other):
                which = f" in channel {channel}" if len(train) > 1 else ""
                message = (
                    f"the {kind} of train{which} have the mean {one.mean:.4g} and the std {one.std:.4g}, those of val "
                    f"{other.mean:.4g} and {other.std:.4g}: are they in the same units?"
                )
                key = "loaders.label_internal_path" if kind == "labels" else "loaders.raw_internal_path"
                yield Found(key, message, advise("write the files of loaders.train and loaders.val in the same units"))


def _are_apart(one: Moments, other: Moments) -> bool:
    stds = sorted((one.std, other.std))
    if not stds[0] > 0:
        return False
    apart = one.low > other.high or other.low > one.high
    return stds[1] > 30 * stds[0] or (apart and abs(one.mean - other.mean) > 10 * stds[1])


@family.rule("P3D514", "warning")
def labels_are_raw(view: View) -> Iterator[Found]:
    """Labels and raw volumes are one dataset: the network learns to give back what it gets. It is easily left from a
    copied config, and its loss looks excellent.

    Example:
        loaders:
          raw_internal_path: raw
          label_internal_path: raw

    Use instead:
        loaders:
          raw_internal_path: raw
          label_internal_path: label
    """
    raw, label = view.get("loaders.raw_internal_path", "raw"), view.get("loaders.label_internal_path", "label")
    if raw == label and view.is_regression:
        message = f"is {label}, the same dataset as raw_internal_path: the network learns to give back its input"
        yield Found("loaders.label_internal_path", message, advise("write the dataset of the labels"))


@family.rule("P3D515", "error", modes=BOTH, needs="files")
def integers_wrap(view: View) -> Iterator[Found]:
    """Volumes of unsigned integers minus a whole number stay unsigned in numpy: 900 - 1000 is 65436. `Standardize` and
    `Normalize` with whole numbers wrap all values below them, without an error. A number with a decimal point makes
    them floating-point numbers first.

    Example:
        loaders:
          label_internal_path: counts
          train:
            transformer:
              label:
                - {name: Standardize, mean: 1000, std: 300}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          label_internal_path: counts
          train:
            transformer:
              label:
                - {name: Standardize, mean: 1000.0, std: 300}
                - {name: ToTensor, expand_dims: true}
    """
    for name, phase in view.phases.items():
        for kind in ("raw", "label") if view.mode == "train" else ("raw",):
            unsigned = [f for f in phase.files if (v := getattr(f, kind)) and v.dtype.kind == "u"]
            if not unsigned:
                continue
            for key, step in steps_of(view, name, kind):
                argument = {"Standardize": "mean", "Normalize": "min_value"}.get(str(step.get("name")))
                number = step.get(argument) if argument else None
                if isinstance(number, int) and not isinstance(number, bool) and number > 0:
                    dtype = getattr(unsigned[0], kind).dtype
                    message = (
                        f"is {number}, and {unsigned[0].path} holds {dtype}: values below it wrap to large ones; "
                        f"write {float(number)}"
                    )
                    yield Found(f"{key}.{argument}", message, write(f"{key}.{argument}", float(number)))
                if not transforms.is_random(step):
                    break  # what comes after it gets other numbers


def _labels(view: View) -> dict[str, list[Moments]]:
    complete = {n: p.statistics for n, p in view.phases.items() if p.statistics and p.statistics.complete}
    return {name: statistics.channels for name, statistics in complete.items()} if view.is_regression else {}


def _raws(view: View) -> dict[str, list[Moments]]:
    """Of all raw volumes of a phase together."""
    merged: dict[str, list[Moments]] = {}
    for name, phase in view.phases.items():
        read = [file.raw_moments for file in phase.files if file.raw_moments]
        if read and len(read) == len(phase.files):
            whole = Moments()
            for found in read:
                whole.merge(found)
            merged[name] = [whole] if math.isfinite(whole.std) else []
    return merged
