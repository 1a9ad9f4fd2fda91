"""Rules about the ``loss`` section."""

import math
from collections.abc import Iterator

from p3d_regression.activations.activation import as_yaml
from p3d_regression.checks.case import Case
from p3d_regression.checks.model import unknown
from p3d_regression.checks.rule import Family, Found
from p3d_regression.upstream import dry_run

family = Family()


@family.rule(
    "P3D204",
    "unknown-loss",
    "error",
    bad="""
loss:
  name: MSE
""",
    good="""
loss:
  name: MSELoss
""",
)
def unknown_loss(case: Case) -> Iterator[Found]:
    """A loss that upstream does not know, or one that lacks an option or cannot use its value. Upstream stops with a
    bare RuntimeError, KeyError or TypeError."""
    section = case.section("loss")
    built = dry_run.loss(section) if section else None
    if built is None or built.error is None:
        return
    if case.loss not in dry_run.loss_names():
        yield Found("loss.name", *unknown(section.get("name"), dry_run.loss_names(), "loss.name", "a loss of upstream"))
    else:
        yield Found("loss", f"upstream cannot build {case.loss} of these options ({built.error})", "")


@family.rule(
    "P3D205",
    "ignored-loss-option",
    "warning",
    bad="""
loss:
  name: SmoothL1Loss
  beta: 0.1
""",
    good="""
loss:
  name: SmoothL1Loss
""",
)
def ignored_loss_option(case: Case) -> Iterator[Found]:
    """Upstream hands its losses a few options only, and drops the others: `beta` and `reduction` of SmoothL1Loss,
    `weight` of all regression losses. The training runs with another loss than the config says."""
    section = case.section("loss")
    built = dry_run.loss(section)
    if built.error is not None:
        return
    for key in [*built.unread, *dry_run.swallowed_weights(section)]:
        if section.get(key) is not None:
            yield Found(f"loss.{key}", f"upstream ignores this option of {case.loss}", "delete the line")


@family.rule(
    "P3D206",
    "ignore-index-counts",
    "warning",
    bad="""
loss:
  name: MSELoss
  ignore_index: -1
""",
    good="""
loss:
  name: MSELoss
""",
)
def ignore_index_counts(case: Case) -> Iterator[Found]:
    """With a regression loss, voxels of this label get the loss 0 and are still counted in the mean: with half of them
    ignored the loss, and its gradient, is half of what it should be. The metric does not ignore them at all: it
    compares the output with the label itself."""
    value = case.get("loss.ignore_index")
    if case.has_regression_loss and _is_number(value) and not math.isnan(value):
        yield Found(
            "loss.ignore_index",
            f"{case.loss} averages over ignored voxels too, and {case.metric} compares them with {as_yaml(value)}",
            "crop the volumes so that no voxel has to be ignored, or mind the scale of the loss",
        )


@family.rule(
    "P3D207",
    "ignore-index-matches-nothing",
    "error",
    bad="""
loss:
  name: MSELoss
  ignore_index: .nan
""",
    good="""
loss:
  name: MSELoss
""",
)
def ignore_index_matches_nothing(case: Case) -> Iterator[Found]:
    """Upstream looks for labels that are equal to `ignore_index`. NaN is not equal to itself: nothing is ignored, the
    first NaN in the labels makes the loss NaN, and then every weight."""
    value = case.get("loss.ignore_index")
    if value is None or (_is_number(value) and not math.isnan(value)):
        return
    why = "NaN is not equal to itself, so that no voxel is ignored" if _is_number(value) else "is not a number"
    yield Found(
        "loss.ignore_index",
        why,
        "write a number into these voxels of the label volume, and: loss: {ignore_index: that number}",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@family.rule(
    "P3D214",
    "target-channel-dropped",
    "error",
    bad="""
loss:
  name: MSELoss
  skip_last_target: true
eval_metric:
  name: MSE
""",
    good="""
loss:
  name: MSELoss
eval_metric:
  name: MSE
""",
)
def target_channel_dropped(case: Case) -> Iterator[Found]:
    """`skip_last_target` hides the last channel of the labels from the loss, not from the metric: MSE and PSNR compare
    all of them with the output, and stop the training at the first score. `squeeze_channel` takes the channel axis
    from the labels, as cross-entropy needs it; a regression loss broadcasts them then."""
    if case.has_regression_metric and case.get("loss.skip_last_target", False):
        said = f"{case.metric} compares all channels of the labels with the output, and stops at the first score"
        yield Found("loss.skip_last_target", said, "delete the line, and the channel from the labels")
    # upstream looks at squeeze_channel only beside it
    squeezes = case.get("loss.skip_last_target", False) and case.get("loss.squeeze_channel", False)
    if case.has_regression_loss and squeezes:
        said = "takes the channel axis from the labels, which are broadcast then"
        yield Found("loss.squeeze_channel", said, "delete the line")
