"""Rules about the ``eval_metric`` section, and whether trainer and scheduler use its direction."""

from collections.abc import Iterator
from pathlib import Path

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules.names import nearest, renamed, unknown
from p3d_regression.checks.view import REGRESSION_METRICS, View
from p3d_regression.errors import Found
from p3d_regression.fix import Fix, advise, write
from p3d_regression.text import as_yaml
from p3d_regression.upstream import checkpoints, introspection
from p3d_regression.upstream.logs import training_config_beside

family = Family()


@family.rule("P3D202", "error")
def score_direction(view: View) -> Iterator[Found]:
    """In pytorch-3dunet `eval_score_higher_is_better` is true by default. If the metric is an error, the worst model is
    then kept as `best_checkpoint`, and nothing in the log looks wrong. In a config that uses this project, a missing
    line is set from the metric.

    Example:
        eval_metric:
          name: MSE
        trainer:
          eval_score_higher_is_better: true

    Use instead:
        eval_metric:
          name: MSE
        trainer:
          eval_score_higher_is_better: false
    """
    if not view.section("trainer"):
        return
    better, is_given = view.higher_is_better, _HIGHER.rpartition(".")[2] in view.section("trainer")
    value = view.get(_HIGHER, True)
    if view.plan.is_ours and not is_given:
        if better is None and view.metric and view.plan_error is None:
            said = f"is missing, and it is not known whether higher values of {view.metric} are better"
            yield Found(_HIGHER, said, write(_HIGHER, True, "or false"))
        return
    if better is None or bool(value) == better:
        return
    taken = str(bool(value)).lower()
    how = f"is {taken}" if is_given else f"is missing, and {taken} by default"
    if isinstance(value, str):
        how = f"is the text {value!r}, which pytorch-3dunet treats as {taken}"
    what = "an error: lower is better" if value else "a score: higher is better"
    said = f"{how}, but {view.metric} is {what}; best_checkpoint would be the worst model"
    yield Found(_HIGHER, said, write(_HIGHER, better))


_HIGHER = "trainer.eval_score_higher_is_better"


@family.rule("P3D203", "error")
def scheduler_direction(view: View) -> Iterator[Found]:
    """`ReduceLROnPlateau` receives the score of each validation. In the wrong mode it does not notice improvements and
    lowers the learning rate until pytorch-3dunet ends the training, below 1e-6, although the model still improves.

    Example:
        eval_metric:
          name: MSE
        lr_scheduler:
          name: ReduceLROnPlateau
          mode: max

    Use instead:
        eval_metric:
          name: MSE
        lr_scheduler:
          name: ReduceLROnPlateau
          mode: min
    """
    better = view.higher_is_better
    if view.get("lr_scheduler.name") != "ReduceLROnPlateau" or better is None:
        return
    mode, wanted = view.get("lr_scheduler.mode", "min"), "max" if better else "min"
    if mode != wanted and not (view.plan.is_ours and "mode" not in view.section("lr_scheduler")):
        how = "is" if "mode" in view.section("lr_scheduler") else "is missing, and by default"
        what = "grows" if better else "falls"
        said = f"{how} {as_yaml(mode)}, but {view.metric} {what} as the model gets better"
        yield Found("lr_scheduler.mode", said, write("lr_scheduler.mode", wanted))


@family.rule("P3D208", "error")
def unknown_metric(view: View) -> Iterator[Found]:
    """Neither pytorch-3dunet nor this project knows the metric, or the metric lacks an option or cannot use the value
    of one. pytorch-3dunet alone stops with an AttributeError; `p3d-regression metrics` lists all metrics.

    Example:
        eval_metric:
          name: R2_Skore

    Use instead:
        eval_metric:
          name: R2Score
    """
    name = view.get("eval_metric.name")
    if not view.section("eval_metric"):
        return
    if view.plan_error is not None:
        found = view.plan_error.found
        if found.section == "eval_metric":
            yield Found(found.key, found.message, _in_its_direction(view, found.fix))
    elif not view.plan.metric and introspection.metric_class(name) is None:
        kind = "a metric of pytorch-3dunet"
        message, fix = unknown(name, introspection.metric_names(), "eval_metric.name", kind, "MSE")
        yield Found("eval_metric.name", message, _in_its_direction(view, fix))


@family.rule("P3D222", "error")
def segmentation_metric_of_values(view: View) -> Iterator[Found]:
    """A metric of segmentation compares classes or objects. Of continuous labels and outputs it may be perfect from the
    first validation on (MeanIoU was 1.0), and the checkpoint of that validation stays the best one to the end.

    Example:
        loss:
          name: MSELoss
        eval_metric:
          name: MeanIoU
        model:
          final_activation: none

    Use instead:
        loss:
          name: MSELoss
        eval_metric:
          name: MSE
        model:
          final_activation: none
    """
    is_upstreams = view.plan.metric is None and introspection.metric_class(view.metric) is not None
    if not (is_upstreams and view.has_regression_loss) or view.metric in REGRESSION_METRICS:
        return
    if view.last_layer.name in ("sigmoid", "softmax"):
        return  # masks, whatever the loss
    fix = write("eval_metric", {"name": "MSE"}) + write("trainer.eval_score_higher_is_better", False)
    if view.get("lr_scheduler.name") == "ReduceLROnPlateau":
        fix += write("lr_scheduler.mode", "min")
    message = (
        f"{view.metric} compares classes, but {view.loss} is for continuous values: it would choose best_checkpoint"
    )
    yield Found("eval_metric.name", message, fix)


def _in_its_direction(view: View, fix: Fix) -> Fix:
    """A fix that writes another metric, and the direction of that one for trainer and scheduler."""
    changed = View(fix.applied_to(view.config), view.mode, opens_files=view.opens_files)
    return sum((found.fix for rule in (score_direction, scheduler_direction) for found in rule(changed)), fix)


@family.rule("P3D209", "warning")
def ignored_metric_option(view: View) -> Iterator[Found]:
    """PSNR and MSE of pytorch-3dunet accept any option and use none. Options of torchmetrics' own metric, such as the
    `data_range` of PSNR, work, because this project then computes the metric.

    Example:
        eval_metric:
          name: MSE
          data_range: 100

    Use instead:
        eval_metric:
          name: MSE
    """
    section, cls = view.section("eval_metric"), introspection.metric_class(view.metric)
    if cls is None or not view.has_regression_metric or view.plan.metric:
        return
    for key, value in section.items():
        if key != "name" and key not in introspection.arguments(cls) and value is not None:
            meant = nearest(key, ["data_range"]) if view.metric == "PSNR" and isinstance(value, int | float) else None
            said = f"pytorch-3dunet's {view.metric} ignores this option"
            said += f"; did you mean {meant}?" if meant else ""
            yield Found(f"eval_metric.{key}", said, renamed("eval_metric", section, key, meant))


@family.rule("P3D219", "error")
def resumed_with_another_metric(view: View) -> Iterator[Found]:
    """With `resume` the best score so far comes from the checkpoint. If the metric has changed, its scores are compared
    with those of the old one: either `best_checkpoint` is never written again, or the first validation replaces it with
    a worse model. The old metric is read from the copy of the training config that pytorch-3dunet writes to `logs/` in
    the checkpoint's directory.

    Example:
        eval_metric:
          name: PSNR
          data_range: 36.0
        trainer:
          eval_score_higher_is_better: true
          resume: resumed/last_checkpoint.pytorch

    Use instead:
        eval_metric:
          name: MSE
        trainer:
          resume: resumed/last_checkpoint.pytorch
    """
    path = checkpoints.checkpoint_of(view.config, "train") if view.get("trainer.resume") and view.opens_files else None
    found = training_config_beside(Path(path)) if path else None
    if found is None or not view.metric:
        return
    before = View(found[1], "train", opens_files=False)
    if before.metric and _measured(before) != _measured(view):
        said = f"is {_measured(view)}, but the best score in the checkpoint is of {_measured(before)} ({found[0]})"
        fix = advise(f"write {_measured(before)} as the metric, or trainer.pre_trained in place of trainer.resume")
        yield Found("eval_metric.name", said, fix)


def _measured(view: View) -> str:
    return str(view.plan.metric or view.metric)


@family.rule("P3D221", "error")
def output_outside_metric(view: View) -> Iterator[Found]:
    """Some metrics are defined for certain predictions only: a logarithm, for example, needs positive ones. A single
    voxel outside makes the score NaN, and no best checkpoint is kept.

    Example:
        model:
          final_activation: none
        eval_metric:
          name: MeanSquaredLogError

    Use instead:
        model:
          final_activation: softplus
        eval_metric:
          name: MeanSquaredLogError
    """
    if view.plan.metric is None:
        return
    metric, wanted = view.plan.metric, view.plan.metric.component.outputs
    ranges = view.predicting(view.seen_by_score("val"))
    outside = next((i for i in ranges if not (i.low >= wanted.low and i.high <= wanted.high)), None)
    if outside is None:
        return
    fix = view.activation_within([wanted] * (view.out_channels or 1))
    if not view.labels_are_in(wanted):
        fix = _in_its_direction(view, write("eval_metric", {"name": "MSE"}))
    yield Found(f"model.{KEY}", f"the output is in {outside}, but {metric} needs it in {wanted}", fix)
