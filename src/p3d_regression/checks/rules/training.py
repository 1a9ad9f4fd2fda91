"""Rules about optimizer, scheduler and trainer."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.names import nearest, renamed, unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import NO_FIX, Fix, delete, write
from p3d_regression.model.precision import KEY
from p3d_regression.text import as_yaml, number_in
from p3d_regression.training import precision, schedule
from p3d_regression.upstream import builders, introspection

family = Family()

#: A trainer section that can be used as it is.
TRAINER = {"checkpoint_dir": "checkpoints", "max_num_epochs": 1000, "max_num_iterations": 150000}


#: Keys of the trainer section that are paths.
_PATHS = ("checkpoint_dir", "resume", "pre_trained")


@family.rule("P3D210", "error")
def unknown_optimizer(view: View) -> Iterator[Found]:
    """pytorch-3dunet silently uses Adam in place of every optimizer that it does not know. Options that it cannot use
    stop it with a bare TypeError. One of these is `learning_rate: 1e-3`: YAML reads it as a text. Write 0.001 or
    1.0e-3.

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
        texts = [key for key, value in section.items() if key != "name" and number_in(value) is not None]
        hint = f"; YAML reads {as_yaml(section[texts[0]])} as a text" if texts else ""
        key = f"optimizer.{texts[0]}" if texts else "optimizer"
        yield Found(key, f"pytorch-3dunet cannot use this ({built.error}){hint}", _working_optimizer(section))
    elif type(built.what).__name__ != name:
        names, kind = builders.optimizer_names(), "an optimizer of pytorch-3dunet"
        message, fix = unknown(name, names, "optimizer.name", kind, "Adam")
        yield Found("optimizer.name", f"{message} pytorch-3dunet would silently use {type(built.what).__name__}", fix)


def _working_optimizer(section: Mapping[Any, Any]) -> Fix:
    """Numbers in place of texts; if that is not enough, the name and the learning rate alone."""
    numbers = {key: _as_number(value) for key, value in section.items() if key != "name"}
    changed = {key: value for key, value in numbers.items() if value is not section[key]}
    if changed and builders.optimizer({**section, **changed}).error is None:
        return sum((write(f"optimizer.{key}", value) for key, value in changed.items()), NO_FIX)
    name = nearest(section.get("name"), builders.optimizer_names()) or "Adam"
    rate = numbers.get("learning_rate")
    is_rate = isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0
    return write("optimizer", {"name": name, "learning_rate": rate if is_rate else 0.0002})


def _as_number(value: object) -> object:
    number = number_in(value)
    return value if number is None else number


@family.rule("P3D211", "error")
def ignored_optimizer_option(view: View) -> Iterator[Found]:
    """pytorch-3dunet reads a few options of each optimizer and silently ignores the others. `lr` is the name in torch;
    pytorch-3dunet calls it `learning_rate`, and without it the rate is 0.001.

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
    unread = builders.optimizer(section).unread if section else []
    for key in section:
        if key == "name" or str(key) not in unread:
            continue
        meant = nearest(key, _OPTIONS)
        if meant in section or (meant and _is_unread(section, key, meant)):
            meant = None
        hint = f"; did you mean {meant}?" if meant else ""
        fix = renamed("optimizer", section, key, meant, _as_number(section[key]))
        yield Found(f"optimizer.{key}", f"pytorch-3dunet ignores this option{hint}", fix)


def _is_unread(section: Mapping[Any, Any], key: object, meant: str) -> bool:
    """Whether this optimizer cannot use the option that was meant."""
    built = builders.optimizer({**section, meant: _as_number(section[key])})
    return built.error is not None or meant in built.unread


_OPTIONS = ["learning_rate", "weight_decay", "betas", "momentum", "nesterov", "alpha", "rho"]


@family.rule("P3D212", "error")
def unknown_scheduler(view: View) -> Iterator[Found]:
    """`torch.optim.lr_scheduler` does not have this scheduler, the scheduler does not take these arguments, or
    `step_per` is not `iteration`, `epoch` or `validation`, after which it steps (pytorch-3dunet: at validations).
    pytorch-3dunet stops with a KeyError, AttributeError or TypeError, after it has opened all files.

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
    try:
        schedule.step_per(section)
    except ConfigError as error:
        yield error.found
        return
    built = builders.scheduler(section, view.section("optimizer")) if isinstance(section, Mapping) else None
    if built is None or built.error is None:
        return
    names, name = builders.scheduler_names(), section.get("name")
    fix = _working_scheduler(view, section, nearest(name, names))
    if name not in names:
        message, _ = unknown(name, names, "lr_scheduler.name", "a scheduler of torch", "ReduceLROnPlateau")
        yield Found("lr_scheduler.name", message, fix)
    else:
        yield Found("lr_scheduler", f"torch cannot build {name} with these arguments ({built.error})", fix)


def _working_scheduler(view: View, section: Mapping[Any, Any], name: str | None) -> Fix:
    """The first of these that can be built: all lines, with their arguments spelled right, another scheduler."""
    from torch.optim import lr_scheduler

    tried = [{**section, "name": name}] if name else []
    if name:
        known = introspection.arguments(getattr(lr_scheduler, name))[1:]
        spelled = {nearest(key, known): _as_number(value) for key, value in section.items() if key != "name"}
        spelled = {key: value for key, value in spelled.items() if key}
        tried += [{"name": name, **spelled}, {"name": name, "step_size": 10, **spelled}]
    for lines in tried:
        if builders.scheduler(lines, view.section("optimizer")).error is None:
            is_renamed = lines == {**section, "name": name}
            return write("lr_scheduler.name", name) if is_renamed else write("lr_scheduler", lines)
    lines = {"name": "ReduceLROnPlateau", "mode": "max" if view.higher_is_better else "min"}
    return write("lr_scheduler", lines, note="for example")


@family.rule("P3D213", "error")
def unknown_trainer_key(view: View) -> Iterator[Found]:
    """The `trainer` section has a key that pytorch-3dunet does not take, lacks one that it needs, or has a value of
    another type. pytorch-3dunet stops with a TypeError, after it has opened all files, or in the first iteration.

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
    known = [*known, KEY]
    meant = {key: nearest(key, known) for key in section if key not in known}
    for key, name in meant.items():
        value = section[key]
        hint = f"valid keys are {', '.join(known)}" if name is None else f"did you mean {name}?"
        if name in section:
            hint = f"{name} has a value already"
        value = _count(value) if isinstance(value, str) and _is_count(name) else value
        fix = renamed("trainer", section, key, name, value)
        yield Found(f"trainer.{key}", f"the trainer of pytorch-3dunet does not take this key; {hint}", fix)
    for key, value in section.items():
        if key not in known or (value is None and introspection.trainer_default(key) is None and key not in TRAINER):
            continue
        if _is_count(key) and not _is_number(value):
            fix = write(f"trainer.{key}", _count(value) if isinstance(value, str) else TRAINER.get(key, 1000))
            yield Found(f"trainer.{key}", f"is {as_yaml(value)}, not a number", fix)
        elif key in _PATHS and not isinstance(value, str):
            fix = write(f"trainer.{key}", TRAINER[key]) if key in TRAINER else delete(f"trainer.{key}")
            yield Found(f"trainer.{key}", f"is {as_yaml(value)}, not a path", fix)
    for key, value in TRAINER.items():
        if key in known and key not in section and key not in meant.values():
            message = "is missing, and the trainer of pytorch-3dunet needs it"
            yield Found(f"trainer.{key}", message, write(f"trainer.{key}", value, note="for example"))


@family.rule("P3D223", "error")
def unknown_precision(view: View) -> Iterator[Found]:
    """`trainer.precision` is `32`, `bf16-mixed` or, on CUDA GPUs, `16-mixed`. The layers of the network are then
    computed in half precision; the last layer, target scaling and the loss in float32.

    Example:
        trainer:
          precision: fp16

    Use instead:
        trainer:
          precision: bf16-mixed
    """
    try:
        precision.precision_of(view.config)
    except ConfigError as error:
        yield error.found


def _is_count(key: object) -> bool:
    return str(key).endswith(("_iters", "_iterations", "_epochs", "_images"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: str) -> int:
    return max(1, int(float(value))) if number_in(value) is not None else 100


@family.rule("P3D234", "error", modes=BOTH)
def device_unknown(view: View) -> Iterator[Found]:
    """pytorch-3dunet knows the devices `cuda`, `mps` and `cpu`, and stops at every other name. Which GPU is used is
    decided by the environment variable `CUDA_VISIBLE_DEVICES`. Without the key it takes the best device that is there.

    Example:
        device: gpu

    Use instead:
        device: cpu
    """
    device, known = view.config.get("device"), introspection.devices()
    if device is not None and known and introspection.device_name(device) not in known:
        message = f"{as_yaml(device)} is not a device of pytorch-3dunet; allowed: {', '.join(known)}"
        yield Found("device", message, delete("device"))


@family.rule("P3D235", "warning", modes=BOTH)
def device_missing(view: View) -> Iterator[Found]:
    """The device that the config names is not on this machine, and torch stops when the model is moved to it. The
    finding does not matter if the training is to run on another machine.

    Example:
        device: mps

    Use instead:
        device: cpu
    """
    import torch

    device = introspection.device_name(view.config.get("device"))
    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device, True)
    if device in introspection.devices() and not is_there:
        message = f"is {device}, which this machine does not have; without the key the best device is used"
        yield Found("device", message, delete("device"))


@family.rule("P3D236", "error")
def seed_not_a_number(view: View) -> Iterator[Found]:
    """`manual_seed` has to be a whole number. pytorch-3dunet stops with a TypeError or a ValueError at anything else.

    Example:
        manual_seed: "none"

    Use instead:
        manual_seed: 0
    """
    seed = view.config.get("manual_seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or abs(seed) >= 2**63):
        number = number_in(seed)
        is_whole = number is not None and math.isfinite(number) and abs(number) < 2**63
        message = f"is {as_yaml(seed)}, not a whole number"
        yield Found("manual_seed", message, write("manual_seed", int(number) if number is not None and is_whole else 0))
