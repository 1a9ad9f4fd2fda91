"""Rules about the values of labels and raw volumes. These read the volumes."""

from collections.abc import Iterator

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.data import Phase
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.interval import Interval
from p3d_regression.labels.moments import Moments
from p3d_regression.labels.psnr import PsnrLimit
from p3d_regression.text import as_yaml

family = Family()

#: Relative to the size of the labels: what float32 cannot tell apart.
_ROUNDING = 1e-6


@family.rule("P3D501", "error", needs="volumes")
def output_cannot_reach_labels(view: View) -> Iterator[Found]:
    """The model's last layer can only say values of its range. Where labels lie outside, loss or score cannot fall
    below a floor, however long the training: for each voxel it is the loss of the value in the range that is next to
    its label. The floor is computed from all labels, exactly; beside it the value of the best constant guess.

    Example:
        model:
          final_activation: tanh

    Use instead:
        model:
          final_activation: none
    """
    for name, phase in view.phases.items():
        if phase.statistics is None or not view.is_regression:
            continue
        limits, seen = [], view.predicting(view.head.ranges)
        for measured, bound in phase.bounds().items():
            ranges = view.predicting(view.seen_by_loss(name) if measured == view.loss else view.seen_by_score(name))
            if _outside(ranges, phase) and bound.floor is not None and bound.constant is not None:
                verb = "rise above" if bound.higher_is_better else "fall below"
                limits.append(
                    f"{measured} cannot {verb} {bound.floor:.6g} (a constant guess reaches {bound.constant:.6g})"
                )
                seen = ranges
        if outside := _outside(seen, phase):
            said = "; ".join(limits) or "some labels cannot be reached"
            said += "" if phase.statistics.complete else " (on what was read so far)"
            yield Found(f"model.{KEY}", f"on {name} {said}: {outside}", view.fitting_activation or _remedy(phase))


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


def _remedy(phase: Phase) -> str:
    """The activation that can say these labels."""
    assert phase.statistics is not None
    names = ["softplus" if labels.low >= 0 else "none" for labels in phase.statistics.channels]
    value = names[0] if len(set(names)) == 1 else names
    return f"model:\n  {KEY}: {as_yaml(value)}"


@family.rule("P3D502", "error", needs="volumes")
def labels_not_finite(view: View) -> Iterator[Found]:
    """One NaN among the labels makes the loss of its batch NaN, and after that step every weight. The training goes
    on to its end, exit status 0, and predicts NaN everywhere. Among the labels to validate with it makes every score
    NaN, and no best checkpoint is kept.

    Example:
        loaders:
          label_internal_path: label_with_nan

    Use instead:
        loaders:
          label_internal_path: label
    """
    for name, phase in view.phases.items():
        for index, labels in enumerate(phase.statistics.channels if phase.statistics else []):
            if labels.nan or labels.inf:
                channel = f" in channel {index}" if phase.statistics and len(phase.statistics.channels) > 1 else ""
                fix = "replace them in the file, or crop the volume"
                if labels.nan and not labels.inf and view.get("loss.ignore_index") is None:
                    fix = "if these voxels have no label\nloss:\n  ignore_index: .nan"
                yield Found(f"loaders.{name}", f"the labels hold {_count(labels)}{channel}", fix)


@family.rule("P3D503", "error", modes=BOTH, needs="volumes")
def raw_not_finite(view: View) -> Iterator[Found]:
    """NaN in a raw volume makes the statistics of Standardize NaN, then the whole patch, and in training all
    weights.

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
                said = f"{file.path}: the raw volume holds {_count(file.raw_moments)}"
                yield Found(f"loaders.{name}.file_paths", said, "replace them in the file, or crop the volume")


def _count(moments: Moments) -> str:
    parts = [f"{n:.0f} {what}" for n, what in ((moments.nan, "NaN"), (moments.inf, "infinite value(s)")) if n]
    return f"{' and '.join(parts)} of {moments.count:.0f}"


@family.rule("P3D504", "error", needs="volumes")
def psnr_range(view: View) -> Iterator[Found]:
    """Upstream's PSNR does not know the range of your labels. It takes 1, or 2 in batches with a negative label, and
    crashes at the first score if a label is outside -1..1. With `data_range`, which upstream alone ignores, it is this
    project's PSNR, of the whole validation.

    Example:
        eval_metric:
          name: PSNR

    Use instead:
        eval_metric:
          name: PSNR
          data_range: 36.0
    """
    if view.metric != "PSNR" or view.plan.metric:
        return
    for name, phase in view.phases.items():
        for labels in phase.statistics.channels if phase.statistics else []:
            if labels.finite and (labels.low < -1 or labels.high > 1):
                said = f"the labels of {name} are in [{labels.low:.6g}, {labels.high:.6g}], outside -1..1: PSNR crashes"
                yield Found("eval_metric.name", said, _with_range(labels))
                return


def _with_range(labels: Moments) -> str:
    """Lines for a PSNR that knows the range."""
    return f"eval_metric:\n  name: PSNR\n  data_range: {max(labels.high - labels.low, 1e-6):.4g}"


@family.rule("P3D505", "warning", needs="volumes")
def psnr_range_changes(view: View) -> Iterator[Found]:
    """Where some batches hold negative labels and others do not, upstream's PSNR assumes a range of 2 in the first
    and of 1 in the others: 6 dB more for the same error, depending on what a batch shows.

    Example:
        eval_metric:
          name: PSNR
        loaders:
          label_internal_path: partly_negative

    Use instead:
        eval_metric:
          name: PSNR
          data_range: 2.0
        loaders:
          label_internal_path: partly_negative
    """
    for name, phase in view.phases.items():
        limit = phase.limits.get("PSNR")
        if isinstance(limit, PsnrLimit):
            negative, batches = limit.batches_with_negative_labels
            if 0 < negative < batches:
                what = "batches" if name == "val" else "patches"
                said = (
                    f"{negative} of {batches} {what} of {name} hold negative labels: PSNR assumes two different ranges"
                )
                assert phase.statistics is not None
                yield Found("eval_metric.name", said, _with_range(phase.statistics.channels[0]))


@family.rule("P3D506", "error", needs="volumes")
def labels_outside_loss(view: View) -> Iterator[Found]:
    """Some losses mean something for certain labels only: `PoissonNLLLoss` for counts, `BCELoss` for fractions. With
    others they are numbers that get smaller for ever, and the training follows them.

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
        for channel, sensible, loss in view.plan.loss.labels(len(channels)):
            labels = channels[channel] if channel < len(channels) else Moments()
            if labels.finite and (labels.low < sensible.low or labels.high > sensible.high):
                which = f" in channel {channel}" if len(channels) > 1 else ""
                span = f"[{labels.low:.6g}, {labels.high:.6g}]"
                said = f"the labels of {name}{which} are in {span}, {loss} is for {sensible}"
                yield Found("loss.name", said, "loss:\n  name: HuberLoss")


@family.rule("P3D507", "error", needs="volumes")
def no_voxel_counts(view: View) -> Iterator[Found]:
    """If `ignore_index` is the label of all voxels, nothing is learnt and no score is a number.

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
    for name, phase in view.phases.items():
        statistics = phase.statistics
        if view.plan.mask is None or statistics is None or not statistics.complete:
            continue
        for channel, labels in enumerate(statistics.channels):
            if not labels.count:
                which = f" in channel {channel}" if len(statistics.channels) > 1 else ""
                said = f"every label of {name}{which} is {view.plan.mask}: no voxel counts"
                yield Found("loss.ignore_index", said, "delete the line, or write the label of voxels without one")


@family.rule("P3D508", "warning", needs="volumes")
def nothing_is_ignored(view: View) -> Iterator[Found]:
    """If no label has the value of `ignore_index`, the voxels that should not count have another one: a sign is missing
    (999 for -999), or a label transform has changed them.

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
    if view.plan.mask is None or not view.phases:
        return
    known = [phase.statistics for phase in view.phases.values() if phase.statistics and phase.statistics.complete]
    if len(known) == len(view.phases) and not any(statistics.ignored for statistics in known):
        lows = [(labels.low, labels.high) for statistics in known for labels in statistics.channels]
        span = f"[{min(low for low, _ in lows):.6g}, {max(high for _, high in lows):.6g}]"
        said = f"no label is {view.plan.mask}: after their transforms they are in {span}"
        yield Found("loss.ignore_index", said, "write the label of the voxels that do not count, or delete the line")


@family.rule("P3D509", "warning", needs="volumes")
def data_range_of_other_labels(view: View) -> Iterator[Found]:
    """`data_range` is the span of the values that labels can have. Another one shifts PSNR by a constant, and changes
    what SSIM takes for similar. Half or twice the span of the labels that there are is taken for meant.

    Example:
        eval_metric:
          name: PSNR
          data_range: 1.0
        trainer:
          eval_score_higher_is_better: true

    Use instead:
        eval_metric:
          name: PSNR
          data_range: 36.0
        trainer:
          eval_score_higher_is_better: true
    """
    given = view.plan.metric.arguments.get("data_range") if view.plan.metric else None
    phase = view.phases.get("val")
    if given is None or phase is None or phase.statistics is None:
        return
    spans = [labels.high - labels.low for labels in phase.statistics.channels if labels.finite]
    if spans and max(spans) > 0 and not 0.5 <= given / max(spans) <= 2:
        said = f"is {given:g}, the labels of val span {max(spans):.6g}"
        yield Found("eval_metric.data_range", said, f"eval_metric:\n  data_range: {max(spans):.4g}")
