"""Rules about metric, optimizer, scheduler and trainer, and about sections that are missing."""

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.case import Case
from p3d_regression.checks.model import found_by, unknown
from p3d_regression.checks.prediction import training_config_beside
from p3d_regression.checks.rule import BOTH, Family, Found
from p3d_regression.components.text import as_yaml
from p3d_regression.upstream import dry_run, facts

family = Family()


@family.rule(
    "P3D201",
    "missing-section",
    "error",
    modes=BOTH,
    bad="""
loss:
""",
    good="""
loss:
  name: MSELoss
""",
)
def missing_section(case: Case) -> Iterator[Found]:
    """Upstream needs these sections, and stops with an assertion or a KeyError without them, one after the other."""
    needed: tuple[str, ...] = ("model", "loaders", "loss", "eval_metric", "optimizer", "trainer")
    needed = needed if case.mode == "train" else needed[:2]
    for name in (*needed, "lr_scheduler", "predictor"):
        value = case.get(name)
        if name == "predictor" and name in case.config and value is None:
            yield Found(name, "this section is empty: upstream stops", "delete the line, or name: StandardPredictor")
        if (name in needed and not case.section(name)) or not (value is None or isinstance(value, Mapping)):
            said, line = "is missing or empty", _FIRST_LINE[name]
            if value:
                said = f"is {as_yaml(value)}, not lines of its own below it"
                line = f"name: {value}" if isinstance(value, str) else line
            elif nearest := get_close_matches(name, [str(key) for key in case.config if key != name], n=1, cutoff=0.75):
                said += f"; {nearest[0]} is not its name"
            yield Found(name, f"this section {said}", f"{name}:\n  {line}")


_FIRST_LINE = {
    "model": "name: UNet3D",
    "loaders": "dataset: StandardHDF5Dataset",
    "loss": "name: MSELoss",
    "eval_metric": "name: MSE",
    "optimizer": "learning_rate: 0.0002",
    "trainer": "checkpoint_dir: checkpoints",
    "lr_scheduler": "name: ReduceLROnPlateau",
    "predictor": "name: StandardPredictor",
}


@family.rule(
    "P3D202",
    "score-direction",
    "error",
    bad="""
eval_metric:
  name: MSE
trainer:
  eval_score_higher_is_better: true
""",
    good="""
eval_metric:
  name: MSE
trainer:
  eval_score_higher_is_better: false
""",
)
def score_direction(case: Case) -> Iterator[Found]:
    """To upstream, `eval_score_higher_is_better` is true unless the config says otherwise. With an error as metric it
    then keeps the worst model as `best_checkpoint`, and nothing in the log looks wrong. In a config that uses this
    project a missing line is set from the metric."""
    better, is_said = case.higher_is_better, "eval_score_higher_is_better" in case.section("trainer")
    said = bool(case.get("trainer.eval_score_higher_is_better", True))
    if case.plan.is_ours and not is_said:
        if better is None and case.metric and case.plan_error is None:
            yield Found(
                "trainer.eval_score_higher_is_better",
                f"is missing, and {case.metric} does not say whether higher is better",
                "trainer:\n  eval_score_higher_is_better: true  # or false",
            )
        return
    if better is None or said == better:
        return
    how = "is" if is_said else "is missing, which means"
    if isinstance(case.get("trainer.eval_score_higher_is_better"), str):
        how = f"is the text {case.get('trainer.eval_score_higher_is_better')!r}, which upstream takes for"
    what = "an error: lower is better" if said else "a score: higher is better"
    yield Found(
        "trainer.eval_score_higher_is_better",
        f"{how} {str(said).lower()}, but {case.metric} is {what}; best_checkpoint would be the worst model",
        f"trainer:\n  eval_score_higher_is_better: {str(better).lower()}",
    )


@family.rule(
    "P3D203",
    "scheduler-direction",
    "error",
    bad="""
eval_metric:
  name: MSE
lr_scheduler:
  name: ReduceLROnPlateau
  mode: max
""",
    good="""
eval_metric:
  name: MSE
lr_scheduler:
  name: ReduceLROnPlateau
  mode: min
""",
)
def scheduler_direction(case: Case) -> Iterator[Found]:
    """`ReduceLROnPlateau` is given the score of each validation. In the wrong mode it takes every improvement for none
    and lowers the learning rate until upstream ends the training, below 1e-6, in the middle of its progress."""
    better = case.higher_is_better
    if case.get("lr_scheduler.name") != "ReduceLROnPlateau" or better is None:
        return
    mode, wanted = case.get("lr_scheduler.mode", "min"), "max" if better else "min"
    if mode != wanted and not (case.plan.is_ours and "mode" not in case.section("lr_scheduler")):
        how = "is" if "mode" in case.section("lr_scheduler") else "is missing, which means"
        what = "grows" if better else "falls"
        yield Found(
            "lr_scheduler.mode",
            f"{how} {as_yaml(mode)}, but {case.metric} {what} as the model gets better",
            f"lr_scheduler:\n  mode: {wanted}",
        )


@family.rule(
    "P3D208",
    "unknown-metric",
    "error",
    bad="""
eval_metric:
  name: R2_Skore
""",
    good="""
eval_metric:
  name: R2Score
""",
)
def unknown_metric(case: Case) -> Iterator[Found]:
    """A metric that neither upstream nor this project knows, or one that lacks an option or cannot use its value.
    Upstream alone stops with an AttributeError; `p3d-regression metrics` lists what there is."""
    if case.plan_error is not None and str(case.plan_error).startswith("eval_metric"):
        yield found_by(case.plan_error)
    elif case.plan_error is not None or case.plan.metric:
        return
    elif case.section("eval_metric") and facts.metric_class(case.get("eval_metric.name")) is None:
        found = unknown(case.get("eval_metric.name"), facts.metric_names(), "eval_metric.name", "a metric of upstream")
        yield Found("eval_metric.name", *found)


@family.rule(
    "P3D209",
    "ignored-metric-option",
    "warning",
    bad="""
eval_metric:
  name: MSE
  data_range: 100
""",
    good="""
eval_metric:
  name: MSE
""",
)
def ignored_metric_option(case: Case) -> Iterator[Found]:
    """Upstream's PSNR and MSE accept any option and use none. Options that torchmetrics' own metric has, such as the
    `data_range` of PSNR, are used: this project computes the metric then."""
    cls = facts.metric_class(case.metric)
    if cls is None or not case.has_regression_metric or case.plan.metric:
        return
    for key, value in case.section("eval_metric").items():
        if key != "name" and key not in facts.arguments(cls) and value is not None:
            near = case.metric == "PSNR" and get_close_matches(str(key), ["data_range"], n=1)
            hint, fix = "; did you mean data_range?", f"eval_metric:\n  name: PSNR\n  data_range: {as_yaml(value)}"
            said = f"upstream's {case.metric} ignores this option"
            yield Found(f"eval_metric.{key}", said + (hint if near else ""), fix if near else "delete the line")


@family.rule(
    "P3D210",
    "unknown-optimizer",
    "error",
    bad="""
optimizer:
  name: adamw
  learning_rate: 0.0002
""",
    good="""
optimizer:
  name: AdamW
  learning_rate: 0.0002
""",
)
def unknown_optimizer(case: Case) -> Iterator[Found]:
    """Upstream takes Adam for every optimizer that it does not know, without a word. Options that it cannot use, such
    as a `learning_rate: 1e-3`, which YAML reads as a text (write 0.001 or 1.0e-3), stop it with a bare TypeError."""
    section = case.section("optimizer")
    if not section:
        return
    built, name = dry_run.optimizer(section), section.get("name", "Adam")
    if built.error is not None:
        texts = [key for key, value in section.items() if key != "name" and _is_number_as_text(value)]
        hint = f"; YAML reads {as_yaml(section[texts[0]])} as a text" if texts else ""
        fix = f"optimizer:\n  {texts[0]}: {as_yaml(float(section[texts[0]]))}" if texts else ""
        yield Found(
            f"optimizer.{texts[0]}" if texts else "optimizer", f"upstream cannot use this ({built.error}){hint}", fix
        )
    elif type(built.what).__name__ != name:
        used = type(built.what).__name__
        message, fix = unknown(name, dry_run.optimizer_names(), "optimizer.name", "an optimizer of upstream")
        yield Found("optimizer.name", f"{message}; it would silently use {used}", fix)


def _as_number(value: object) -> object:
    return float(value) if isinstance(value, str) and _is_number_as_text(value) else value


def _is_number_as_text(value: object) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


@family.rule(
    "P3D211",
    "ignored-optimizer-option",
    "error",
    bad="""
optimizer:
  name: Adam
  lr: 0.0002
""",
    good="""
optimizer:
  name: Adam
  learning_rate: 0.0002
""",
)
def ignored_optimizer_option(case: Case) -> Iterator[Found]:
    """Upstream looks for a few options of each optimizer and ignores the others. `lr` is torch's name; upstream's is
    `learning_rate`, and without it the rate is 0.001."""
    section = case.section("optimizer")
    if not section:
        return
    for key in dry_run.optimizer(section).unread:
        if key == "name":
            continue
        nearest = "learning_rate" if key == "lr" else next(iter(get_close_matches(key, _OPTIONS, n=1)), None)
        hint, fix = "", "delete the line"
        if nearest and nearest not in section:
            hint, fix = f"; did you mean {nearest}?", f"optimizer:\n  {nearest}: {as_yaml(_as_number(section[key]))}"
        yield Found(f"optimizer.{key}", f"upstream ignores this option{hint}", fix)


_OPTIONS = ["learning_rate", "weight_decay", "betas", "momentum", "nesterov", "alpha", "rho"]


@family.rule(
    "P3D212",
    "unknown-scheduler",
    "error",
    bad="""
lr_scheduler:
  name: StepLr
  step_size: 10
""",
    good="""
lr_scheduler:
  name: StepLR
  step_size: 10
""",
)
def unknown_scheduler(case: Case) -> Iterator[Found]:
    """A scheduler that `torch.optim.lr_scheduler` does not have, or with arguments that it does not take. Upstream
    stops with a KeyError, AttributeError or TypeError, after it has opened all files."""
    section = case.get("lr_scheduler")
    built = dry_run.scheduler(section, case.section("optimizer")) if isinstance(section, Mapping) else None
    if built is None or built.error is None:
        return
    if section.get("name") not in dry_run.scheduler_names():
        found = unknown(section.get("name"), dry_run.scheduler_names(), "lr_scheduler.name", "a scheduler of torch")
        yield Found("lr_scheduler.name", *found)
    else:
        yield Found("lr_scheduler", f"torch cannot build {section['name']} of these options ({built.error})")


@family.rule(
    "P3D213",
    "unknown-trainer-key",
    "error",
    bad="""
trainer:
  max_num_iteration: 1000
""",
    good="""
trainer:
  max_num_iterations: 1000
""",
)
def unknown_trainer_key(case: Case) -> Iterator[Found]:
    """A key of the `trainer` section that upstream does not take, one that it needs and does not find, or a text
    where it needs a number. It stops with a TypeError, after it has opened all files, or in the first iteration."""
    section, known = case.section("trainer"), facts.trainer_parameters()
    if not section or not known:
        return
    for key in section:
        if key not in known:
            nearest = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
            fix = f"trainer:\n  {nearest[0]}: {as_yaml(section[key])}" if nearest else "delete the line"
            yield Found(f"trainer.{key}", f"upstream's trainer does not take this key; {hint}", fix)
    for key, value in section.items():
        if isinstance(value, str) and str(key).endswith(("_iters", "_iterations", "_epochs", "_images")):
            number = value if value.isdecimal() else "100"
            yield Found(f"trainer.{key}", f"{value!r} is a text, not a number", f"trainer:\n  {key}: {number}")
    for key in ("checkpoint_dir", "max_num_epochs", "max_num_iterations"):
        if key in known and key not in section and not get_close_matches(key, list(map(str, section)), n=1, cutoff=0.8):
            yield Found(f"trainer.{key}", "upstream's trainer needs this key", f"trainer:\n  {key}: ...")


@family.rule(
    "P3D215",
    "key-given-twice",
    "error",
    modes=BOTH,
    bad="""
optimizer:
  learning_rate: 0.01
  learning_rate: 0.0001
""",
    good="""
optimizer:
  learning_rate: 0.0001
""",
)
def key_given_twice(case: Case) -> Iterator[Found]:
    """YAML takes the last of two lines with the same key, and the last of two sections, without a word: whatever
    stood in the first is gone."""
    for key, line in case.twice:
        yield Found(key, f"comes again in line {line}, and what was said before is lost", "make one of the two")


@family.rule(
    "P3D219",
    "resumed-with-another-metric",
    "error",
    bad="""
eval_metric:
  name: PSNR
  data_range: 36.0
trainer:
  eval_score_higher_is_better: true
  resume: resumed/last_checkpoint.pytorch
""",
    good="""
eval_metric:
  name: MSE
trainer:
  resume: resumed/last_checkpoint.pytorch
""",
)
def resumed_with_another_metric(case: Case) -> Iterator[Found]:
    """With `resume` the best score so far comes from the checkpoint. Scores of another metric are compared with it
    then: `best_checkpoint` is never written again, or at once by a worse model. Which metric it was says the copy of
    the training config that upstream has left in `logs/` beside the checkpoint."""
    path = facts.checkpoint_of(case.config, "train") if case.get("trainer.resume") and case.opens_files else None
    found = training_config_beside(Path(path)) if path else None
    if found is None or not case.metric:
        return
    before = Case(found[1], "train", opens_files=False)
    if before.metric and _measured(before) != _measured(case):
        said = f"is {_measured(case)}; the checkpoint's best score is of {_measured(before)} (says {found[0]})"
        fix = "name the checkpoint as trainer.pre_trained, which starts a training anew, or take the same metric"
        yield Found("eval_metric.name", said, fix)


def _measured(case: Case) -> str:
    return str(case.plan.metric or case.metric)


@family.rule(
    "P3D220",
    "key-outside-its-section",
    "warning",
    bad="""
loss:
  name: HuberLoss
delta: 2.0
""",
    good="""
loss:
  name: HuberLoss
  delta: 2.0
""",
)
def key_outside_its_section(case: Case) -> Iterator[Found]:
    """A line that is not indented is a section of its own, and nobody reads it."""
    options = {
        "loss": {"ignore_index", *(name for leaf in _leaves(case) for name in leaf.loss.parameters)},
        "eval_metric": set(case.plan.metric.metric.parameters if case.plan.metric else ()) | {"data_range"},
        "trainer": set(facts.trainer_parameters()),
        "optimizer": {"learning_rate", "weight_decay"},
    }
    for key, value in case.config.items():
        for section, names in options.items():
            if key in names and not isinstance(value, Mapping):
                fix = f"{section}:\n  {key}: {as_yaml(value)}"
                yield Found(str(key), f"nothing reads this line here; it belongs into the section {section}", fix)
                break


def _leaves(case: Case) -> list[Any]:
    return [leaf for leaf in case.plan.loss.leaves if leaf.loss] if case.plan.loss else []


@family.rule(
    "P3D221",
    "output-outside-metric",
    "error",
    bad="""
model:
  final_activation: none
eval_metric:
  name: MeanSquaredLogError
""",
    good="""
model:
  final_activation: softplus
eval_metric:
  name: MeanSquaredLogError
""",
)
def output_outside_metric(case: Case) -> Iterator[Found]:
    """Some metrics are numbers for certain predictions only, such as logarithms for those above 0. One voxel outside
    makes the score NaN, and no best checkpoint is kept."""
    if case.plan.metric is None:
        return
    wanted = case.plan.metric.metric.outputs
    for interval in case.predicting(case.seen_by_score("val")):
        if not (interval.low >= wanted.low and interval.high <= wanted.high):
            said = f"the output is in {interval}, {case.plan.metric} is for {wanted}"
            yield Found(f"model.{KEY}", said, f"model:\n  {KEY}: softplus")
            return
