"""Rules about sections and lines that are missing, misplaced or given twice."""

from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.activations.spec import KEY
from p3d_regression.checks.rule import BOTH, Check, Family
from p3d_regression.checks.rules import loss, metric, model, prediction, training
from p3d_regression.checks.rules.names import nearest, section
from p3d_regression.checks.rules.network import fewer_levels
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import NO_FIX, Fix, advise, delete, write
from p3d_regression.losses.loss import PLAIN
from p3d_regression.text import as_yaml
from p3d_regression.upstream import introspection

family = Family()

_NEEDED: dict[str, tuple[str, ...]] = {
    "train": ("model", "loaders", "loss", "eval_metric", "optimizer", "trainer"),
    "predict": ("model", "loaders"),
}


@family.rule("P3D201", "error", modes=BOTH)
def missing_section(view: View) -> Iterator[Found]:
    """pytorch-3dunet needs these sections. It stops with an AssertionError or a KeyError at the first one that is
    missing. When that one is added, it stops at the next.

    Example:
        loss:

    Use instead:
        loss:
          name: MSELoss
    """
    for name in (*_NEEDED[view.mode], "lr_scheduler", "predictor"):
        value, is_needed = view.get(name), name in _NEEDED[view.mode]
        if name == "predictor" and name in view.config and value is None:
            yield Found(name, "this section is empty, and pytorch-3dunet stops", delete(name))
        elif value and not isinstance(value, Mapping):
            yield Found(name, f"is {as_yaml(value)}, not a section with lines of its own", _section(view, name))
        elif (is_needed and not value) or not (value is None or isinstance(value, Mapping)):
            others = [key for key in view.config if isinstance(key, str) and key not in _FIRST_LINES]
            meant = next((key for key in others if view.section(key) and nearest(key, [name], 0.75)), None)
            hint = f"; did you mean {meant}?" if meant else ""
            fix = write(name, view.section(meant)) + delete(meant) if meant else _section(view, name)
            yield Found(name, f"this section is missing or empty{hint}", fix)


#: A section that can be used as it is.
_FIRST_LINES: dict[str, dict[str, Any]] = {
    "model": {"name": "UNet3D", "in_channels": 1, "out_channels": 1},
    "loaders": {},
    "loss": {"name": PLAIN},
    "eval_metric": {"name": "MSE"},
    "optimizer": {"name": "Adam", "learning_rate": 0.0002},
    "trainer": training.TRAINER,
    "lr_scheduler": {"name": "ReduceLROnPlateau"},
    "predictor": {"name": "StandardPredictor"},
}


def _section(view: View, name: str) -> Fix:
    """A section for one that is missing or only a name: with this name, if it is valid."""
    if name == "loaders":
        phases = " and ".join(view.phase_names)
        return advise(f"write a section loaders that names the files, patches and transforms of {phases}")
    lines = dict(_FIRST_LINES[name])
    rules: dict[str, Check] = {
        "model": model.unknown_model,
        "loss": loss.unknown_loss,
        "eval_metric": metric.unknown_metric,
        "optimizer": training.unknown_optimizer,
        "lr_scheduler": training.unknown_scheduler,
        "predictor": prediction.predictor_not_understood,
    }
    if isinstance(view.get(name), str) and name in rules:
        named = write(name, {**lines, "name": view.get(name)})
        if not list(rules[name](View(named.applied_to(view.config), view.mode, opens_files=False))):
            lines["name"] = view.get(name)
    return _in_agreement(view, name, lines)


def _in_agreement(view: View, name: str, lines: dict[str, Any]) -> Fix:
    """A section and what has to change with it, so that no other rule finds it."""
    better, said = view.higher_is_better, "trainer.eval_score_higher_is_better"
    if name == "model":
        levels = fewer_levels(view)
        lines |= {"f_maps": levels} if levels else {}
        return section(name, lines | ({KEY: "none"} if view.mode == "train" else {}))
    if name == "lr_scheduler" and lines["name"] == "ReduceLROnPlateau":
        lines["mode"] = "max" if better else "min"
    elif name == "trainer" and better is not None:
        lines["eval_score_higher_is_better"] = better
    elif name == "eval_metric" and view.loss and not view.is_regression:
        lines["name"] = "MeanIoU"
    elif name == "loss" and view.metric and not view.is_regression and view.last_layer.is_segmentation:
        lines["name"] = "BCEDiceLoss"
    elif lines.get("name") == "MSE" and (view.get(said) is True or view.get("lr_scheduler.mode") == "max"):
        lines["name"] = "R2Score"
    fix = section(name, lines)
    changed = View(fix.applied_to(view.config), view.mode, opens_files=False)
    if name == "eval_metric" and view.section("trainer") and changed.higher_is_better != view.get(said, True):
        fix += write(said, changed.higher_is_better)
    if (
        changed.is_regression
        and not view.is_regression
        and not view.last_layer.is_ours
        and view.last_layer.is_segmentation
    ):
        fix += write(f"model.{KEY}", "none")
    return fix


@family.rule("P3D215", "error", modes=BOTH)
def key_given_twice(view: View) -> Iterator[Found]:
    """If a key or a section is given twice, YAML reads the second one and silently drops the first one, with everything
    in it.

    Example:
        optimizer:
          learning_rate: 0.01
          learning_rate: 0.0001

    Use instead:
        optimizer:
          learning_rate: 0.0001
    """
    for key, line in view.duplicate_keys:
        message = f"is given again in line {line}; only this one is read, the value before it is ignored"
        yield Found(key, message, advise(f"delete one of the two {key}, or merge them"))


@family.rule("P3D220", "warning")
def key_outside_its_section(view: View) -> Iterator[Found]:
    """A line that is not indented does not belong to the section above it. pytorch-3dunet does not read it.

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
        "loss": {"ignore_index", *(name for leaf in _leaves(view) for name in leaf.component.parameters)},
        "eval_metric": set(view.plan.metric.component.parameters if view.plan.metric else ()) | {"data_range"},
        "trainer": set(introspection.trainer_parameters()),
        "optimizer": {"learning_rate", "weight_decay"},
    }
    for key, value in view.config.items():
        section = next((section for section, names in options.items() if key in names), None)
        if section and not isinstance(value, Mapping):
            moved = NO_FIX if key in view.section(section) else write(f"{section}.{key}", value)
            message = f"nothing reads this line here; it belongs to the section {section}"
            yield Found(str(key), message, moved + delete(str(key)))


def _leaves(view: View) -> list[Any]:
    return list(view.plan.loss.leaves) if view.plan.loss else []
