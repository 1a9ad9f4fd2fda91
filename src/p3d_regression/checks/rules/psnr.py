"""Rules about the range of values that PSNR and SSIM assume. These read the volumes."""

from collections.abc import Iterator

from p3d_regression.checks.rule import Family
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import Fix, write
from p3d_regression.labels.psnr import PsnrLimit

family = Family()


@family.rule("P3D504", "error", needs="volumes")
def psnr_range(view: View) -> Iterator[Found]:
    """The PSNR of pytorch-3dunet does not know the range of your labels. It assumes 1, or 2 in batches with a negative
    label, and crashes at the first score if a label is outside -1..1. pytorch-3dunet ignores `data_range`; with this
    argument p3d-regression computes the PSNR, over the whole validation.

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
                span = f"[{labels.low:.6g}, {labels.high:.6g}]"
                message = f"the labels of {name} are in {span}, outside -1..1: PSNR crashes"
                yield Found("eval_metric.name", message, _with_range(view))
                return


def _with_range(view: View) -> Fix:
    """A PSNR that knows the range of the labels: of the validation, which it is computed on."""
    phases = [view.phases[name].statistics for name in ("val", "train") if name in view.phases]
    found = [labels.high - labels.low for phase in phases if phase for labels in phase.channels if labels.finite]
    return write("eval_metric.data_range", _rounded(found[0]), note="the span of your labels")


def _rounded(span: float) -> float:
    return float(f"{max(span, 1e-6):.4g}")


@family.rule("P3D505", "warning", needs="volumes")
def psnr_range_changes(view: View) -> Iterator[Found]:
    """Where some batches hold negative labels and others do not, the PSNR of pytorch-3dunet assumes a range of 2 in
    the first and of 1 in the others: a difference of 6 dB for the same error. The log shows one number that depends on
    the order of the batches.

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
                message = f"{negative} of {batches} {what} of {name} hold negative labels"
                yield Found("eval_metric.name", f"{message}: PSNR assumes two different ranges", _with_range(view))


@family.rule("P3D509", "warning", needs="volumes")
def data_range_of_other_labels(view: View) -> Iterator[Found]:
    """`data_range` is the difference between the largest and the smallest value that labels can have. A wrong one
    shifts PSNR by a constant, and changes which differences SSIM treats as small. The rule reports values below half or
    above twice the span of the labels in the files.

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
        message = f"is {given:g}, the labels of val span {max(spans):.6g}"
        yield Found("eval_metric.data_range", message, write("eval_metric.data_range", _rounded(max(spans))))
