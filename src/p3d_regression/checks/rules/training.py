"""Rules about optimizer, scheduler and trainer, and about sections and lines that are missing or misplaced."""

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.model import unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.text import as_yaml
from p3d_regression.upstream import builders, introspection

family = Family()


@family.rule("P3D201", "error", modes=BOTH)
def missing_section(view: View) -> Iterator[Found]:
    """Upstream needs these sections, and stops with an assertion or a KeyError without them, one after the other.

    Example:
        loss:

    Use instead:
        loss:
          name: MSELoss
    """
    needed: tuple[str, ...] = ("model", "loaders", "loss", "eval_metric", "optimizer", "trainer")
    needed = needed if view.mode == "train" else needed[:2]
    for name in (*needed, "lr_scheduler", "predictor"):
        value = view.get(name)
        if name == "predictor" and name in view.config and value is None:
            yield Found(name, "this section is empty: upstream stops", "delete the line, or name: StandardPredictor")
        if (name in needed and not view.section(name)) or not (value is None or isinstance(value, Mapping)):
            said, line = "is missing or empty", _FIRST_LINE[name]
            if value:
                said = f"is {as_yaml(value)}, not lines of its own below it"
                line = f"name: {value}" if isinstance(value, str) else line
            elif nearest := get_close_matches(name, [str(key) for key in view.config if key != name], n=1, cutoff=0.75):
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


@family.rule("P3D210", "error")
def unknown_optimizer(view: View) -> Iterator[Found]:
    """Upstream takes Adam for every optimizer that it does not know, without a word. Options that it cannot use, such
    as a `learning_rate: 1e-3`, which YAML reads as a text (write 0.001 or 1.0e-3), stop it with a bare TypeError.

    Example:
        optimizer:
          name: adamw
          learning_rate: 0.0002

    Use instead:
        optimizer:
          name: AdamW
          learning_rate: 0.0002
    """
    section = view.section("optimizer")
    if not section:
        return
    built, name = builders.optimizer(section), section.get("name", "Adam")
    if built.error is not None:
        texts = [key for key, value in section.items() if key != "name" and _is_number_as_text(value)]
        hint = f"; YAML reads {as_yaml(section[texts[0]])} as a text" if texts else ""
        fix = f"optimizer:\n  {texts[0]}: {as_yaml(float(section[texts[0]]))}" if texts else ""
        yield Found(
            f"optimizer.{texts[0]}" if texts else "optimizer", f"upstream cannot use this ({built.error}){hint}", fix
        )
    elif type(built.what).__name__ != name:
        used = type(built.what).__name__
        message, fix = unknown(name, builders.optimizer_names(), "optimizer.name", "an optimizer of upstream")
        yield Found("optimizer.name", f"{message}; it would silently use {used}", fix)


def _as_number(value: object) -> object:
    return float(value) if isinstance(value, str) and _is_number_as_text(value) else value


def _is_number_as_text(value: object) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


@family.rule("P3D211", "error")
def ignored_optimizer_option(view: View) -> Iterator[Found]:
    """Upstream looks for a few options of each optimizer and ignores the others. `lr` is torch's name; upstream's is
    `learning_rate`, and without it the rate is 0.001.

    Example:
        optimizer:
          name: Adam
          lr: 0.0002

    Use instead:
        optimizer:
          name: Adam
          learning_rate: 0.0002
    """
    section = view.section("optimizer")
    if not section:
        return
    for key in builders.optimizer(section).unread:
        if key == "name":
            continue
        nearest = "learning_rate" if key == "lr" else next(iter(get_close_matches(key, _OPTIONS, n=1)), None)
        hint, fix = "", "delete the line"
        if nearest and nearest not in section:
            hint, fix = f"; did you mean {nearest}?", f"optimizer:\n  {nearest}: {as_yaml(_as_number(section[key]))}"
        yield Found(f"optimizer.{key}", f"upstream ignores this option{hint}", fix)


_OPTIONS = ["learning_rate", "weight_decay", "betas", "momentum", "nesterov", "alpha", "rho"]


@family.rule("P3D212", "error")
def unknown_scheduler(view: View) -> Iterator[Found]:
    """A scheduler that `torch.optim.lr_scheduler` does not have, or with arguments that it does not take. Upstream
    stops with a KeyError, AttributeError or TypeError, after it has opened all files.

    Example:
        lr_scheduler:
          name: StepLr
          step_size: 10

    Use instead:
        lr_scheduler:
          name: StepLR
          step_size: 10
    """
    section = view.get("lr_scheduler")
    built = builders.scheduler(section, view.section("optimizer")) if isinstance(section, Mapping) else None
    if built is None or built.error is None:
        return
    if section.get("name") not in builders.scheduler_names():
        found = unknown(section.get("name"), builders.scheduler_names(), "lr_scheduler.name", "a scheduler of torch")
        yield Found("lr_scheduler.name", *found)
    else:
        yield Found("lr_scheduler", f"torch cannot build {section['name']} of these options ({built.error})")


@family.rule("P3D213", "error")
def unknown_trainer_key(view: View) -> Iterator[Found]:
    """A key of the `trainer` section that upstream does not take, one that it needs and does not find, or a text
    where it needs a number. It stops with a TypeError, after it has opened all files, or in the first iteration.

    Example:
        trainer:
          max_num_iteration: 1000

    Use instead:
        trainer:
          max_num_iterations: 1000
    """
    section, known = view.section("trainer"), introspection.trainer_parameters()
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


@family.rule("P3D215", "error", modes=BOTH)
def key_given_twice(view: View) -> Iterator[Found]:
    """YAML takes the last of two lines with the same key, and the last of two sections, without a word: whatever
    stood in the first is gone.

    Example:
        optimizer:
          learning_rate: 0.01
          learning_rate: 0.0001

    Use instead:
        optimizer:
          learning_rate: 0.0001
    """
    for key, line in view.twice:
        yield Found(key, f"comes again in line {line}, and what was said before is lost", "make one of the two")


@family.rule("P3D220", "warning")
def key_outside_its_section(view: View) -> Iterator[Found]:
    """A line that is not indented is a section of its own, and nobody reads it.

    Example:
        loss:
          name: HuberLoss
        delta: 2.0

    Use instead:
        loss:
          name: HuberLoss
          delta: 2.0
    """
    options = {
        "loss": {"ignore_index", *(name for leaf in _leaves(view) for name in leaf.loss.parameters)},
        "eval_metric": set(view.plan.metric.metric.parameters if view.plan.metric else ()) | {"data_range"},
        "trainer": set(introspection.trainer_parameters()),
        "optimizer": {"learning_rate", "weight_decay"},
    }
    for key, value in view.config.items():
        for section, names in options.items():
            if key in names and not isinstance(value, Mapping):
                fix = f"{section}:\n  {key}: {as_yaml(value)}"
                yield Found(str(key), f"nothing reads this line here; it belongs into the section {section}", fix)
                break


def _leaves(view: View) -> list[Any]:
    return [leaf for leaf in view.plan.loss.leaves if leaf.loss] if view.plan.loss else []
