"""Rules about the ``loss`` section."""

import math
from collections.abc import Iterator

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules.names import removed, unknown
from p3d_regression.checks.view import View
from p3d_regression.components.configured import Configured
from p3d_regression.errors import Found
from p3d_regression.fix import NO_FIX, Fix, advise, delete, write
from p3d_regression.losses import registry as losses
from p3d_regression.losses.loss import PLAIN, Loss
from p3d_regression.text import as_yaml
from p3d_regression.upstream import builders

family = Family()


@family.rule("P3D204", "error")
def unknown_loss(view: View) -> Iterator[Found]:
    """Neither pytorch-3dunet nor this project knows the loss, or the loss lacks an option, cannot use the value of one,
    or does not fit the number of output channels. pytorch-3dunet alone stops with a bare RuntimeError, KeyError or
    TypeError; `p3d-regression losses` lists all losses.

    Example:
        loss:
          name: HubberLoss

    Use instead:
        loss:
          name: HuberLoss
          delta: 2.0
    """
    section, error = view.section("loss"), view.plan_error
    is_reported = not _is_label(view.get("loss.ignore_index"))  # as ignore-index-matches-nothing
    if not section:
        return
    if error is not None and error.found.section == "loss" and not (is_reported and "ignore_index" in error.found.key):
        yield error.found
    if error is not None or view.plan.loss:
        return
    if not isinstance(section.get("name"), str):
        names, kind = builders.loss_names(), "a loss of pytorch-3dunet"
        yield Found("loss.name", *unknown(section.get("name"), names, "loss.name", kind, PLAIN))
        return
    built = builders.loss(section)
    if built.error is not None:
        said = f"pytorch-3dunet cannot build {view.loss} with these options ({built.error})"
        yield Found("loss", said, advise(f"write options that {view.loss} takes, or another loss"))


@family.rule("P3D205", "warning")
def ignored_loss_option(view: View) -> Iterator[Found]:
    """pytorch-3dunet passes only a few options to its losses and drops the others: `reduction`, and the `weight` of all
    regression losses. The training then uses a different loss from the one in the config. Options of torch's own loss,
    such as `beta` of SmoothL1Loss, work, because this project then builds the loss.

    Example:
        loss:
          name: MSELoss
          weight: [1.0, 2.0]

    Use instead:
        loss:
          name: MSELoss
    """
    section = view.section("loss")
    built = builders.loss(section)
    if built.error is not None or view.plan.loss or view.plan_error is not None:
        return
    for key in [*built.unread, *builders.swallowed_weights(section)]:
        if section.get(key) is not None:
            said = f"pytorch-3dunet ignores this option of {view.loss}"
            yield Found(f"loss.{key}", said, removed("loss", section, key))


@family.rule("P3D206", "warning")
def ignore_index_counts(view: View) -> Iterator[Found]:
    """In the regression losses of pytorch-3dunet, voxels with this label get the loss 0 but still count in the mean:
    if half of them are ignored, the loss and its gradient are half of what they should be. The metric does not ignore
    them at all: it compares the output with the label `ignore_index`. With `final_activation` they count in neither.

    Example:
        model:
          is_segmentation: false
        loss:
          name: MSELoss
          ignore_index: -1

    Use instead:
        model:
          final_activation: none
        loss:
          name: MSELoss
          ignore_index: -1
    """
    value = view.get("loss.ignore_index")
    if view.has_regression_loss and _is_number(value) and not (view.plan.loss or view.plan_error):
        metric = view.metric or "the metric"
        said = f"{view.loss} averages over ignored voxels too, and {metric} compares them with {as_yaml(value)}"
        yield Found("loss.ignore_index", said, view.with_activation("none"))


@family.rule("P3D207", "error")
def ignore_index_matches_nothing(view: View) -> Iterator[Found]:
    """`ignore_index` is the label of the voxels that do not count: a number, or `.nan`. YAML reads `nan` without the
    dot as a text, which equals no label. (Without this project, pytorch-3dunet finds no voxel for `.nan` either.)

    Example:
        loss:
          name: MSELoss
          ignore_index: nan

    Use instead:
        loss:
          name: MSELoss
          ignore_index: .nan
    """
    value = view.get("loss.ignore_index")
    if not _is_label(value):
        yield Found("loss.ignore_index", f"{as_yaml(value)} is not a number", _as_label(value))


def _as_label(value: object) -> Fix:
    """What an ``ignore_index`` that is no number was meant to be."""
    text = str(value).strip().lower().removeprefix(".")
    if text in ("none", "null", "~"):
        return delete("loss.ignore_index")
    try:
        return write("loss.ignore_index", float(text) if text == "nan" else int(str(value)))
    except ValueError:
        return write("loss.ignore_index", math.nan, "or the label of the voxels that do not count")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_label(value: object) -> bool:
    """Whether an ``ignore_index`` is a number or absent."""
    return value is None or _is_number(value)


@family.rule("P3D214", "error")
def target_channel_dropped(view: View) -> Iterator[Found]:
    """`skip_last_target` hides the last channel of the labels from the loss, but not from the metric: MSE and PSNR
    compare all channels with the output, and stop the training at the first score. `squeeze_channel` removes the
    channel axis of the labels, as cross-entropy needs it; a regression loss then broadcasts them.

    Example:
        loss:
          name: MSELoss
          skip_last_target: true
        eval_metric:
          name: MSE

    Use instead:
        loss:
          name: MSELoss
        eval_metric:
          name: MSE
    """
    # pytorch-3dunet reads squeeze_channel only together with skip_last_target
    skips = view.get("loss.skip_last_target", False)
    if view.has_regression_metric and skips:
        said = f"{view.metric} compares all channels of the labels with the output, and stops at the first score"
        fix = delete("loss.skip_last_target") + advise("and delete the last channel of the labels in the files")
        yield Found("loss.skip_last_target", said, fix)
    if view.has_regression_loss and skips and view.get("loss.squeeze_channel", False):
        said = f"removes the channel axis of the labels; {view.loss} then broadcasts them"
        yield Found("loss.squeeze_channel", said, delete("loss.squeeze_channel"))


@family.rule("P3D216", "error")
def output_outside_loss(view: View) -> Iterator[Found]:
    """Some losses need outputs in a certain range: `BCELoss` needs fractions, and a variance must not be negative. An
    output outside the range stops the training at some iteration, or is clipped and has no gradient that leads back.
    The final activation must keep the output inside.

    Example:
        model:
          final_activation: none
        loss:
          name: BCELoss

    Use instead:
        model:
          final_activation: sigmoid
        loss:
          name: BCELoss
    """
    if view.plan.loss is None or view.out_channels is None:
        return
    seen = view.seen_by_loss("train")
    for channel, needed, loss in view.plan.loss.needs(view.out_channels):
        if channel < len(seen) and not (seen[channel].low >= needed.low and seen[channel].high <= needed.high):
            which = f"output channel {channel}" if len(seen) > 1 else "the output"
            # pytorch-3dunet applies its own last layer after the loss
            where = "" if view.last_layer.is_ours or seen == view.last_layer.ranges else ", before the last layer,"
            said = f"{which}{where} is in {seen[channel]}, but {loss} needs it in {needed}"
            fits = view.labels_are_in(needed) and view.fitting_activation
            yield Found(f"model.{KEY}", said, fits or for_any_labels(view))


def for_any_labels(view: View) -> Fix:
    """Write a loss that any label and any output can be given, with the user's ``ignore_index``."""
    masked = {key: value for key, value in view.section("loss").items() if key == "ignore_index"}
    return write("loss", {"name": PLAIN, **masked})


@family.rule("P3D217", "error")
def output_is_not_the_label(view: View) -> Iterator[Found]:
    """For some losses the output is a function of the predicted value: for `PoissonNLLLoss` it is the logarithm of a
    rate, for `BCEWithLogitsLoss` the input of a sigmoid. The metric compares that output with the labels: while the
    loss falls, the score gets worse, and `best_checkpoint` is an early model. `predict3dunet` also writes that output.
    Choose a final activation whose output is in the units of the labels, and the loss for such an output.

    Example:
        model:
          final_activation: none
        loss:
          name: PoissonNLLLoss
        eval_metric:
          name: R2Score

    Use instead:
        model:
          final_activation: exp
        loss:
          name: PoissonNLLLoss
          log_input: false
        eval_metric:
          name: R2Score
    """
    if not view.last_layer.is_ours or not view.has_regression_metric or _sorts(view):
        return
    channels, final, described = view.out_channels or 1, view.final, view.plan.described
    for leaf, applied, own in described.own_functions(channels) if described and final else []:
        if final is None or not leaf.component.instead:
            continue
        what = "the logarithm of the labels" if applied == "exp" else f"the input of a {applied}"
        said = f"for {leaf.component.name} the output is {what}, and {view.metric} compares it with the labels"
        yield Found(f"{leaf.place}.name", said, without_own_function(view, leaf, applied, own))


def without_own_function(view: View, leaf: Configured[Loss], applied: str, own: list[int]) -> Fix:
    """Let the final activation of some channels apply what a loss applies itself, and write the loss for its output."""
    changes, channels = dict(leaf.component.instead), view.out_channels or 1
    wanted = changes.pop("final_activation", applied)
    # the labels of one channel of several are the matter of another rule
    if leaf.place == "loss" and not view.labels_are_in(leaf.component.labels_of(leaf.arguments)):
        return view.with_activation("none") + for_any_labels(view)
    others = [view.final.entry(channel).short if view.final else "none" for channel in range(channels)]
    entries = [wanted if channel in own else others[channel] for channel in range(channels)]
    fix = view.with_activation(wanted if len(own) == channels else entries)
    return sum((write(f"{leaf.place}.{key}", value) for key, value in changes.items()), fix)


def _sorts(view: View) -> bool:
    """Whether the metric looks at the order of values alone."""
    return view.plan.metric is not None and view.plan.metric.component.name == "SpearmanCorrCoef"


@family.rule("P3D218", "error")
def cross_entropy_of_one_channel(view: View) -> Iterator[Found]:
    """Cross-entropy compares classes, one per output channel, after a softmax over the channels. For a single channel
    that is 1.0 everywhere: the loss is 0 from the start, and nothing is learnt.

    Example:
        loss:
          name: CrossEntropyLoss

    Use instead:
        loss:
          name: MSELoss
    """
    known = losses.known(view.loss)
    if known and known.compares == "classes" and view.out_channels == 1:
        said = "is for several classes; with one output channel it is 0 for every output"
        fix = write("loss.name", PLAIN, "for continuous labels")
        # it compares continuous values, and must not be given a Sigmoid's or a Softmax's output
        fix += view.with_activation("none") if view.last_layer.is_segmentation else NO_FIX
        yield Found("loss.name", said, fix)
