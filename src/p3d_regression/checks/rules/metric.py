"""Rules about the ``eval_metric`` section, and whether its direction is the one that the trainer is told."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules.model import unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection
from p3d_regression.upstream.logs import training_config_beside

family = Family()


@family.rule("P3D202", "error")
def score_direction(view: View) -> Iterator[Found]:
    """To upstream, `eval_score_higher_is_better` is true unless the config says otherwise. With an error as metric it
    then keeps the worst model as `best_checkpoint`, and nothing in the log looks wrong. In a config that uses this
    project a missing line is set from the metric.

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
    better, is_said = view.higher_is_better, "eval_score_higher_is_better" in view.section("trainer")
    said = bool(view.get("trainer.eval_score_higher_is_better", True))
    if view.plan.is_ours and not is_said:
        if better is None and view.metric and view.plan_error is None:
            yield Found(
                "trainer.eval_score_higher_is_better",
                f"is missing, and {view.metric} does not say whether higher is better",
                "trainer:\n  eval_score_higher_is_better: true  # or false",
            )
        return
    if better is None or said == better:
        return
    how = "is" if is_said else "is missing, which means"
    if isinstance(view.get("trainer.eval_score_higher_is_better"), str):
        how = f"is the text {view.get('trainer.eval_score_higher_is_better')!r}, which upstream takes for"
    what = "an error: lower is better" if said else "a score: higher is better"
    yield Found(
        "trainer.eval_score_higher_is_better",
        f"{how} {str(said).lower()}, but {view.metric} is {what}; best_checkpoint would be the worst model",
        f"trainer:\n  eval_score_higher_is_better: {str(better).lower()}",
    )


@family.rule("P3D203", "error")
def scheduler_direction(view: View) -> Iterator[Found]:
    """`ReduceLROnPlateau` is given the score of each validation. In the wrong mode it takes every improvement for none
    and lowers the learning rate until upstream ends the training, below 1e-6, in the middle of its progress.

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
        how = "is" if "mode" in view.section("lr_scheduler") else "is missing, which means"
        what = "grows" if better else "falls"
        yield Found(
            "lr_scheduler.mode",
            f"{how} {as_yaml(mode)}, but {view.metric} {what} as the model gets better",
            f"lr_scheduler:\n  mode: {wanted}",
        )


@family.rule("P3D208", "error")
def unknown_metric(view: View) -> Iterator[Found]:
    """A metric that neither upstream nor this project knows, or one that lacks an option or cannot use its value.
    Upstream alone stops with an AttributeError; `p3d-regression metrics` lists what there is.

    Example:
        eval_metric:
          name: R2_Skore

    Use instead:
        eval_metric:
          name: R2Score
    """
    section = view.section("eval_metric")
    if section and view.plan_error is not None and view.plan_error.found.key.startswith("eval_metric"):
        yield view.plan_error.found
    elif view.plan_error is not None or view.plan.metric:
        return
    elif section and introspection.metric_class(view.get("eval_metric.name")) is None:
        found = unknown(
            view.get("eval_metric.name"), introspection.metric_names(), "eval_metric.name", "a metric of upstream"
        )
        yield Found("eval_metric.name", *found)


@family.rule("P3D209", "warning")
def ignored_metric_option(view: View) -> Iterator[Found]:
    """Upstream's PSNR and MSE accept any option and use none. Options that torchmetrics' own metric has, such as the
    `data_range` of PSNR, are used: this project computes the metric then.

    Example:
        eval_metric:
          name: MSE
          data_range: 100

    Use instead:
        eval_metric:
          name: MSE
    """
    cls = introspection.metric_class(view.metric)
    if cls is None or not view.has_regression_metric or view.plan.metric:
        return
    for key, value in view.section("eval_metric").items():
        if key != "name" and key not in introspection.arguments(cls) and value is not None:
            near = view.metric == "PSNR" and get_close_matches(str(key), ["data_range"], n=1)
            hint, fix = "; did you mean data_range?", f"eval_metric:\n  name: PSNR\n  data_range: {as_yaml(value)}"
            said = f"upstream's {view.metric} ignores this option"
            yield Found(f"eval_metric.{key}", said + (hint if near else ""), fix if near else "delete the line")


@family.rule("P3D219", "error")
def resumed_with_another_metric(view: View) -> Iterator[Found]:
    """With `resume` the best score so far comes from the checkpoint. Scores of another metric are compared with it
    then: `best_checkpoint` is never written again, or at once by a worse model. Which metric it was says the copy of
    the training config that upstream has left in `logs/` beside the checkpoint.

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
    path = (
        introspection.checkpoint_of(view.config, "train") if view.get("trainer.resume") and view.opens_files else None
    )
    found = training_config_beside(Path(path)) if path else None
    if found is None or not view.metric:
        return
    before = View(found[1], "train", opens_files=False)
    if before.metric and _measured(before) != _measured(view):
        said = f"is {_measured(view)}; the checkpoint's best score is of {_measured(before)} (says {found[0]})"
        fix = "name the checkpoint as trainer.pre_trained, which starts a training anew, or take the same metric"
        yield Found("eval_metric.name", said, fix)


def _measured(view: View) -> str:
    return str(view.plan.metric or view.metric)


@family.rule("P3D221", "error")
def output_outside_metric(view: View) -> Iterator[Found]:
    """Some metrics are numbers for certain predictions only, such as logarithms for those above 0. One voxel outside
    makes the score NaN, and no best checkpoint is kept.

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
    wanted = view.plan.metric.component.outputs
    for interval in view.predicting(view.seen_by_score("val")):
        if not (interval.low >= wanted.low and interval.high <= wanted.high):
            said = f"the output is in {interval}, {view.plan.metric} is for {wanted}"
            yield Found(f"model.{KEY}", said, f"model:\n  {KEY}: softplus")
            return
