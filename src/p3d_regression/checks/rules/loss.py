"""Rules about the ``loss`` section."""

from collections.abc import Iterator

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules.model import found_by, unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import write
from p3d_regression.losses import registry as losses
from p3d_regression.text import as_yaml
from p3d_regression.upstream import builders

family = Family()


@family.rule("P3D204", "error")
def unknown_loss(view: View) -> Iterator[Found]:
    """A loss that neither upstream nor this project knows, one that lacks an option or cannot use its value, or one
    that does not fit the number of output channels. Upstream alone stops with a bare RuntimeError, KeyError or
    TypeError; `p3d-regression losses` lists what there is.

    Example:
        loss:
          name: HubberLoss

    Use instead:
        loss:
          name: HuberLoss
          delta: 2.0
    """
    section = view.section("loss")
    if view.plan_error is not None and str(view.plan_error).startswith("loss"):
        yield found_by(view.plan_error)
    if not section or view.plan_error is not None or view.plan.loss:
        return
    if not isinstance(section.get("name"), str):
        yield Found(
            "loss.name", *unknown(section.get("name"), builders.loss_names(), "loss.name", "a loss of upstream")
        )
        return
    built = builders.loss(section)
    if built.error is not None:
        yield Found("loss", f"upstream cannot build {view.loss} of these options ({built.error})", "")


@family.rule("P3D205", "warning")
def ignored_loss_option(view: View) -> Iterator[Found]:
    """Upstream hands its losses a few options only, and drops the others: `reduction`, and the `weight` of all
    regression losses. The training runs with another loss than the config says. Options that torch's own loss has, such
    as `beta` of SmoothL1Loss, are used: this project builds the loss then.

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
            yield Found(f"loss.{key}", f"upstream ignores this option of {view.loss}", "delete the line")


@family.rule("P3D206", "warning")
def ignore_index_counts(view: View) -> Iterator[Found]:
    """With upstream's regression losses, voxels of this label get the loss 0 and are still counted in the mean: with
    half of them ignored the loss, and its gradient, is half of what it should be. The metric does not ignore them at
    all: it compares the output with the label itself. In a config that uses this project, they count in neither.

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
        yield Found(
            "loss.ignore_index",
            f"{view.loss} averages over ignored voxels too, and {view.metric} compares them with {as_yaml(value)}",
            "model:\n  final_activation: none",
        )


@family.rule("P3D207", "error")
def ignore_index_matches_nothing(view: View) -> Iterator[Found]:
    """`ignore_index` is the label of the voxels that do not count: a number, or `.nan`. Anything else is no label, and
    YAML reads `nan` without the dot as a text. (Upstream alone, without this project, finds no voxel for `.nan`
    either.)

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
    if value is not None and not _is_number(value):
        is_nan = str(value).strip().lower() in ("nan", "none", "null")
        fix = f"loss:\n  ignore_index: {'.nan' if is_nan else 0}"
        yield Found("loss.ignore_index", f"{as_yaml(value)} is not a number", fix)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@family.rule("P3D214", "error")
def target_channel_dropped(view: View) -> Iterator[Found]:
    """`skip_last_target` hides the last channel of the labels from the loss, not from the metric: MSE and PSNR compare
    all of them with the output, and stop the training at the first score. `squeeze_channel` takes the channel axis
    from the labels, as cross-entropy needs it; a regression loss broadcasts them then.

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
    if view.has_regression_metric and view.get("loss.skip_last_target", False):
        said = f"{view.metric} compares all channels of the labels with the output, and stops at the first score"
        yield Found("loss.skip_last_target", said, "delete the line, and the channel from the labels")
    # upstream looks at squeeze_channel only beside it
    squeezes = view.get("loss.skip_last_target", False) and view.get("loss.squeeze_channel", False)
    if view.has_regression_loss and squeezes:
        said = "takes the channel axis from the labels, which are broadcast then"
        yield Found("loss.squeeze_channel", said, "delete the line")


@family.rule("P3D216", "error")
def output_outside_loss(view: View) -> Iterator[Found]:
    """Some losses are for outputs of a certain range: `BCELoss` for fractions, a variance for values that are not
    negative. What lies outside stops the training at some iteration, or is cut off without a gradient that leads back.
    The final activation has to keep the output inside.

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
            # upstream's own last layer comes after its loss
            where = "" if view.head.is_ours or seen == view.head.ranges else ", before upstream's last layer,"
            yield Found(
                f"model.{KEY}",
                f"{which}{where} is in {seen[channel]}, {loss} is for {needed}",
                view.fitting_activation or "",
            )


@family.rule("P3D217", "error")
def output_is_not_the_label(view: View) -> Iterator[Found]:
    """Some losses are for an output that is a function of what it predicts: `PoissonNLLLoss` for the logarithm of a
    rate, `BCEWithLogitsLoss` for what comes before a sigmoid. The metric compares that output with the labels: while
    the loss falls the score gets worse, and `best_checkpoint` is an early model. `predict3dunet` writes it, too. Let
    the final activation make values like the labels, and choose the loss that is for them.

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
    if not view.head.is_ours or not view.has_regression_metric or _sorts(view):
        return
    channels, final, described = view.out_channels or 1, view.final, view.plan.described
    for leaf, loss, applied, own in described.own_functions(channels) if described and final else []:
        if final is None or not loss.instead:
            continue
        what = "the logarithm of the labels" if applied == "exp" else f"what comes before a {applied}"
        said = f"for {leaf.spec.name} the output is {what}, and {view.metric} compares it with the labels"
        changes = dict(loss.instead)
        wanted = changes.pop("final_activation", applied)
        entries = [wanted if channel in own else final.entry(channel).short for channel in range(channels)]
        fix = write(f"model.{KEY}", wanted if len(own) == channels else entries)
        fix = sum((write(f"{leaf.spec.place}.{key}", value) for key, value in changes.items()), fix)
        yield Found(f"{leaf.spec.place}.name", said, fix)


def _sorts(view: View) -> bool:
    """Whether the metric looks at the order of values alone."""
    return view.plan.metric is not None and view.plan.metric.metric.name == "SpearmanCorrCoef"


@family.rule("P3D218", "error")
def cross_entropy_of_one_channel(view: View) -> Iterator[Found]:
    """Cross-entropy compares classes, one per output channel, through a softmax over them. Of one channel that is 1.0
    everywhere: the loss is 0 from the start, and nothing is learnt.

    Example:
        loss:
          name: CrossEntropyLoss

    Use instead:
        loss:
          name: MSELoss
    """
    known = losses.known(view.loss)
    if known and known.compares == "classes" and view.out_channels == 1:
        said = "is for several classes; with one output channel it is 0 whatever the network says"
        yield Found("loss.name", said, "loss:\n  name: MSELoss  # for continuous labels; BCEWithLogitsLoss for a mask")
