"""Rules about the values of labels and raw volumes. These read the volumes."""

import math
from collections.abc import Iterator

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.data import Phase
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules import loss, metric
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import NO_FIX, Fix, advise, delete, write
from p3d_regression.interval import Interval
from p3d_regression.labels.moments import Moments
from p3d_regression.scaling.spec import KEY as SCALING

family = Family()

#: Relative to the size of the labels: what float32 cannot tell apart.
_ROUNDING = 1e-6


def label_channels(view: View) -> Iterator[tuple[str, Phase, int, Moments]]:
    """Phase, its name, channel and values of all labels that were read."""
    for name, phase in view.phases.items():
        for channel, labels in enumerate(phase.statistics.channels if phase.statistics else []):
            yield name, phase, channel, labels


def in_channel(phase: Phase, channel: int) -> str:
    return f" in channel {channel}" if phase.statistics and len(phase.statistics.channels) > 1 else ""


@family.rule("P3D501", "error", needs="volumes")
def output_cannot_reach_labels(view: View) -> Iterator[Found]:
    """The output of the model is in the range of its last layer. Where labels are outside, the error of every voxel is
    at least the distance from its label to that range, however long the training lasts. Loss and score fall as usual
    and then stop at a floor. The floor is computed from all labels, exactly; the message also gives the value that
    the best constant output reaches.

    Example:
        model:
          final_activation: tanh

    Use instead:
        model:
          final_activation: none
    """
    for name, phase in view.phases.items():
        if phase.statistics is None or not view.is_regression or not view.model:
            continue
        limits, seen = [], view.predicting(view.last_layer.ranges)
        for measured, bound in phase.bounds().items():
            ranges = view.predicting(view.seen_by_loss(name) if measured == view.loss else view.seen_by_score(name))
            if _outside(ranges, phase) and bound.floor is not None and bound.constant is not None:
                verb = "rise above" if bound.higher_is_better else "fall below"
                best = f"the best constant output reaches {bound.constant:.6g}"
                limits.append(f"{measured} cannot {verb} {bound.floor:.6g} ({best})")
                seen = ranges
        if outside := _outside(seen, phase):
            message = "; ".join(limits) or "some labels cannot be reached"
            message += "" if phase.statistics.complete else " (on what was read so far)"
            yield Found(f"model.{KEY}", f"on {name} {message}: {outside}", _reaching(view))


def _outside(ranges: tuple[Interval, ...], phase: Phase) -> str | None:
    """Which labels no output can be, in words."""
    assert phase.statistics is not None
    channels = phase.statistics.channels
    if len(channels) < len(ranges):
        return None
    for index, (interval, labels) in enumerate(zip(ranges, channels, strict=False)):
        slack = _ROUNDING * max(1.0, abs(labels.low), abs(labels.high))
        if labels.finite and (labels.low < interval.low - slack or labels.high > interval.high + slack):
            which = "the output" if len(ranges) == 1 else f"output channel {index}"
            return f"{which} is in {interval}, the labels are in [{labels.low:.6g}, {labels.high:.6g}]"
    return None


def _reaching(view: View) -> Fix:
    """The activation whose range holds the labels of all phases."""
    least = [math.inf] * (view.out_channels or 1)
    for _, _, channel, labels in label_channels(view):
        if channel < len(least) and labels.finite:
            least[channel] = min(least[channel], labels.low)
    names = ["softplus" if low >= 0 and SCALING not in view.model else "none" for low in least]
    fitting = view.fitting_activation if "none" not in names else None
    fix = fitting or view.with_activation(names[0] if len(set(names)) == 1 else names)
    changed = View(fix.applied_to(view.config), view.mode, view.phases, opens_files=view.opens_files)
    fix += loss.for_any_labels(view) if list(loss.output_outside_loss(changed)) else NO_FIX
    if list(metric.output_outside_metric(changed)) and view.higher_is_better is False:
        fix += write("eval_metric", {"name": "MSE"})
    return fix


@family.rule("P3D502", "error", needs="volumes")
def labels_not_finite(view: View) -> Iterator[Found]:
    """One NaN among the labels makes the loss of its batch NaN, and after that step every weight. The training runs to
    its end with exit status 0, and the model predicts NaN everywhere. A NaN among the validation labels makes every
    score NaN, and no best checkpoint is kept.

    Example:
        loaders:
          label_internal_path: label_with_nan

    Use instead:
        loaders:
          label_internal_path: label
    """
    for name, phase, channel, labels in label_channels(view):
        if labels.nan or labels.inf:
            fix = advise(f"replace them in the files of loaders.{name}.file_paths, or crop the volumes")
            if (
                not any(labels.inf for _, _, _, labels in label_channels(view))
                and view.get("loss.ignore_index") is None
            ):
                fix = write("loss.ignore_index", math.nan, note="if NaN marks voxels without a label")
                fix += NO_FIX if view.uses_plugin else write(f"model.{KEY}", "none")
            yield Found(f"loaders.{name}", f"the labels hold {_count(labels)}{in_channel(phase, channel)}", fix)


@family.rule("P3D503", "error", modes=BOTH, needs="volumes")
def raw_not_finite(view: View) -> Iterator[Found]:
    """NaN in a raw volume makes the statistics of Standardize NaN, then the whole patch, and in training all
    weights. No error is raised.

    Example:
        loaders:
          raw_internal_path: raw_with_nan

    Use instead:
        loaders:
          raw_internal_path: raw
    """
    for name, phase in view.phases.items():
        for file in phase.files:
            if file.raw_moments and (file.raw_moments.nan or file.raw_moments.inf):
                message = f"{file.path}: the raw volume holds {_count(file.raw_moments)}"
                advice = advise(f"replace them in {phase.raw_path} of {file.path}, or crop the volume")
                yield Found(f"loaders.{name}.file_paths", message, advice)


def _count(moments: Moments) -> str:
    parts = [f"{n:.0f} {what}" for n, what in ((moments.nan, "NaN"), (moments.inf, "infinite value(s)")) if n]
    return f"{' and '.join(parts)} of {moments.count:.0f}"


@family.rule("P3D506", "error", needs="volumes")
def labels_outside_loss(view: View) -> Iterator[Found]:
    """Some losses are defined for certain labels only: `PoissonNLLLoss` for counts, `BCELoss` for fractions. With
    other labels they have no minimum: the loss decreases without limit, and the predictions grow with it.

    Example:
        model:
          final_activation: softplus
        loss:
          name: PoissonNLLLoss
          log_input: false
        loaders:
          label_internal_path: partly_negative

    Use instead:
        model:
          final_activation: softplus
        loss:
          name: PoissonNLLLoss
          log_input: false
        loaders:
          label_internal_path: positive
    """
    if view.plan.loss is None:
        return
    for name, phase in view.phases.items():
        channels = phase.statistics.channels if phase.statistics else []
        for channel, sensible, name_of_loss in view.plan.loss.labels(len(channels)):
            labels = channels[channel] if channel < len(channels) else Moments()
            if labels.finite and (labels.low < sensible.low or labels.high > sensible.high):
                span = f"[{labels.low:.6g}, {labels.high:.6g}]"
                message = (
                    f"the labels of {name}{in_channel(phase, channel)} are in {span}, {name_of_loss} is for {sensible}"
                )
                yield Found("loss.name", message, loss.for_any_labels(view))


@family.rule("P3D507", "error", needs="volumes")
def no_voxel_counts(view: View) -> Iterator[Found]:
    """If all voxels have the label `ignore_index`, the network learns nothing and every score is NaN.

    Example:
        model:
          final_activation: none
        loss:
          name: MSELoss
          ignore_index: 0
        loaders:
          label_internal_path: zero

    Use instead:
        model:
          final_activation: none
        loss:
          name: MSELoss
          ignore_index: 0
    """
    mask = view.plan.mask
    for name, phase, channel, labels in label_channels(view) if mask else ():
        if mask and phase.statistics and phase.statistics.complete and not labels.count:
            message = f"every label of {name}{in_channel(phase, channel)} is {mask}: no voxel counts"
            advice = advise(f"write labels to {phase.label_path} in the files of loaders.{name}.file_paths")
            yield Found("loss.ignore_index", message, advice)


@family.rule("P3D508", "warning", needs="volumes")
def nothing_is_ignored(view: View) -> Iterator[Found]:
    """If no label has the value of `ignore_index`, the voxels that should not count have another value, and the network
    learns it as a label: a sign is missing (999 for -999), or a label transform has changed the value.

    Example:
        model:
          final_activation: none
        loss:
          name: MSELoss
          ignore_index: 999

    Use instead:
        model:
          final_activation: none
        loss:
          name: MSELoss
    """
    mask = view.plan.mask
    if mask is None or not view.phases:
        return
    known = [phase.statistics for phase in view.phases.values() if phase.statistics and phase.statistics.complete]
    if len(known) == len(view.phases) and not any(statistics.ignored for statistics in known):
        low = min(labels.low for _, _, _, labels in label_channels(view))
        high = max(labels.high for _, _, _, labels in label_channels(view))
        message = f"no label is {mask}: after their transforms they are in [{low:.6g}, {high:.6g}]"
        is_negated = -mask.ignored in (low, high)
        fix = write("loss.ignore_index", -view.get("loss.ignore_index")) if is_negated else delete("loss.ignore_index")
        yield Found("loss.ignore_index", message, fix)
