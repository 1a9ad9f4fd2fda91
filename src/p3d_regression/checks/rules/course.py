"""Rules about the course of a training: its scheduler, and whether a checkpoint is ever written."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.data import is_shape
from p3d_regression.checks.rule import Family
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import NO_FIX, Fix, advise, delete, write
from p3d_regression.text import as_yaml, number_in
from p3d_regression.training import schedule
from p3d_regression.upstream import builders, datasets, introspection

family = Family()

#: More steps of a scheduler say nothing new.
_MOST_STEPS = 10_000

#: Below it the trainer of pytorch-3dunet stops.
_LEAST_RATE = 1e-6

#: No optimizer survives more.
_LARGEST_RATE = 100

#: Arguments of schedulers that count steps.
_COUNTS = ("milestones", "step_size", "T_max", "T_0", "total_iters", "total_steps")


@family.rule("P3D230", "error")
def scheduler_fails(view: View) -> Iterator[Found]:
    """torch builds a scheduler also of numbers that YAML reads as texts, such as `1e-6` or `"10"`, and fails when the
    scheduler is used: at a validation, after hours, before the checkpoint of this validation is saved.

    Example:
        lr_scheduler:
          name: StepLR
          step_size: "10"

    Use instead:
        lr_scheduler:
          name: StepLR
          step_size: 10
    """
    section = view.section("lr_scheduler")
    if not section or builders.scheduler(section, view.section("optimizer")).error is not None:
        return
    numbers = {key: _numbers(value) for key, value in section.items() if key not in ("name", "mode", "threshold_mode")}
    texts = {
        key: value for key, value in numbers.items() if value != section[key] or type(value) is not type(section[key])
    }
    if texts:
        for key, value in texts.items():
            message = f"is {as_yaml(section[key])}, which YAML reads as text; training stops at a validation"
            yield Found(f"lr_scheduler.{key}", message, write(f"lr_scheduler.{key}", value))
        return
    steps = min(max(_steps(view) or 0, 2), _MOST_STEPS)
    rates = builders.learning_rates(section, view.section("optimizer"), steps)
    if isinstance(rates, str):
        fix = _longer(section, steps) or write("lr_scheduler", {"name": "ReduceLROnPlateau"}, note="for example")
        message = f"{section.get('name')} fails within the {steps} {_unit(view)}s of this training ({rates})"
        yield Found("lr_scheduler", f"{message}, before the checkpoint is saved", fix)


def _numbers(value: object) -> object:
    """A value with numbers in place of texts that hold one."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and (number := number_in(value)) is not None:
        return number
    return value


def _longer(section: Mapping[str, Any], steps: int) -> Fix:
    if "total_steps" in section:
        return write("lr_scheduler.total_steps", steps + 1)
    return NO_FIX


@family.rule("P3D231", "error", needs="files", stops=False)
def no_checkpoint(view: View) -> Iterator[Found]:
    """pytorch-3dunet saves checkpoints at validations only, every `validate_after_iters` iterations. A training that
    ends before the first one leaves nothing, with exit status 0. An iteration is one batch, and an epoch ends when the
    patches of all files are used up.

    Example:
        trainer:
          max_num_iterations: 100
          validate_after_iters: 1000

    Use instead:
        trainer:
          max_num_iterations: 100
          validate_after_iters: 50
    """
    total, interval = _iterations(view), _number(view, "validate_after_iters")
    if total is None or interval is None or view.get("trainer.resume") is not None or total >= interval:
        return
    ends = f"the training ends after {total:.0f} iteration(s)"
    if total < 1:
        keys = [k for k in ("max_num_epochs", "max_num_iterations") if (_number(view, k) or 0) < 1]
        key = f"trainer.{keys[0]}" if keys else "trainer.max_num_epochs"
        yield Found(key, f"is {as_yaml(view.get(key))}: nothing is trained", write(key, 1000, note="for example"))
        return
    message = f"is {interval:.0f}, but {ends}: there is no validation, and no checkpoint is written"
    wanted = max(1, int(total) // 10 or 1)
    yield Found("trainer.validate_after_iters", message, write("trainer.validate_after_iters", wanted))


@family.rule("P3D232", "warning", needs="files")
def scheduler_never_acts(view: View) -> Iterator[Found]:
    """pytorch-3dunet steps the scheduler once per validation, not once per iteration or epoch. Milestones in iterations
    are never reached, and the learning rate stays as it is; a scheduler that counts too fast takes it below 1e-6, where
    the trainer stops. With p3d-regression `step_per: iteration` or `epoch` in `lr_scheduler` changes when it steps.

    Example:
        trainer:
          max_num_iterations: 1000
          max_num_epochs: 1000
          validate_after_iters: 100
        lr_scheduler:
          name: MultiStepLR
          milestones: [500, 800]

    Use instead:
        trainer:
          max_num_iterations: 1000
          max_num_epochs: 1000
          validate_after_iters: 100
        lr_scheduler:
          name: MultiStepLR
          milestones: [5, 8]
    """
    section, steps, unit = view.section("lr_scheduler"), _steps(view), _unit(view)
    if not steps or steps > _MOST_STEPS or view.get("trainer.resume") is not None:
        return
    given = {key: section[key] for key in _COUNTS if key in section}
    interval = _number(view, "validate_after_iters") or 1 if unit == schedule.VALIDATION else 1
    rates = builders.learning_rates(section, view.section("optimizer"), steps) if section else []
    if isinstance(rates, str) or not rates:
        return
    if given and len(set(rates)) == 1:
        key, value = next(iter(given.items()))
        least = min(value) if isinstance(value, list) and value else value
        # a training that is only cut short is not meant, nor a scheduler that is there for nothing
        if not isinstance(least, int | float) or least <= 3 * steps or section.get("gamma") == 1:
            return
        message = (
            f"is {as_yaml(value)}, but the scheduler steps once per {unit}, and this training has {steps}: "
            "the learning rate never changes"
        )
        yield Found(f"lr_scheduler.{key}", message, _in_steps(key, value, interval, steps))
    elif (
        section.get("name") != "ReduceLROnPlateau"
        and rates[0] > _LEAST_RATE
        and (early := _first_below(rates)) < len(rates) - 1
    ):
        message = (
            f"takes the learning rate below {_LEAST_RATE:g} at {unit} {early} of {steps}, and there the "
            f"trainer stops; the scheduler steps once per {unit}"
        )
        yield Found("lr_scheduler", message, advise("let the scheduler take more steps, or the training fewer"))


def _first_below(rates: list[float]) -> int:
    return next((index for index, rate in enumerate(rates) if rate < _LEAST_RATE), len(rates))


def _in_steps(key: str, value: Any, interval: float, steps: int) -> Fix:
    """Iterations as steps, if that is what they were; else a third and two thirds of the training."""
    numbers = value if isinstance(value, list) else [value]
    counted = [max(1, round(n / interval)) for n in numbers if isinstance(n, int | float)]
    if len(counted) != len(numbers) or not all(1 <= n < steps for n in counted):
        if steps < 3:
            return delete("lr_scheduler")
        counted = [max(1, steps * (i + 1) // (len(numbers) + 1)) for i in range(len(numbers))]
    counted = sorted(set(counted))
    return write(f"lr_scheduler.{key}", counted if isinstance(value, list) else counted[0])


@family.rule("P3D233", "error")
def learning_rate_useless(view: View) -> Iterator[Found]:
    """With a learning rate of 0 nothing is learned. (pytorch-3dunet even stops after the first iteration, since it is
    below 1e-6.) With one above 100 the weights are NaN after a few iterations.

    Example:
        optimizer:
          learning_rate: 0

    Use instead:
        optimizer:
          learning_rate: 0.0002
    """
    rate = view.get("optimizer.learning_rate")
    if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate < _LEAST_RATE:
        message = f"is {as_yaml(rate)}; the trainer of pytorch-3dunet stops below {_LEAST_RATE:g}"
    elif isinstance(rate, int | float) and rate > _LARGEST_RATE:
        message = f"is {as_yaml(rate)}: the weights will be NaN after a few iterations"
    else:
        return
    yield Found("optimizer.learning_rate", message, write("optimizer.learning_rate", 0.0002, note="for example"))


def _number(view: View, key: str) -> float | None:
    """A count of the trainer section, or its default; None where it is not a number."""
    value = view.get(f"trainer.{key}", introspection.trainer_default(key))
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _iterations(view: View) -> float | None:
    """How many iterations a training has: an upper limit where files were not read; None if it is not known."""
    most, epochs = _number(view, "max_num_iterations"), _number(view, "max_num_epochs")
    if most is None or epochs is None:
        return None
    # the trainer stops after the iteration whose number is larger
    limits = [most + 1 if most > 0 else most, *([epochs * batches] if (batches := _batches(view)) else [])]
    return min(limits) if epochs > 0 else 0


def _validations(view: View) -> int | None:
    total, interval = _iterations(view), _number(view, "validate_after_iters")
    return None if total is None or not interval or interval < 0 else int(total // interval)


def _unit(view: View) -> str:
    """After what the scheduler steps."""
    try:
        return schedule.step_per(view.get("lr_scheduler"))
    except ConfigError:
        return schedule.VALIDATION  # another rule reports it


def _steps(view: View) -> int | None:
    """How often the scheduler steps; None if it is not known."""
    total, unit = _iterations(view), _unit(view)
    if total is None or unit == schedule.ITERATION:
        return None if total is None else int(total)
    if unit == schedule.EPOCH:
        batches = _batches(view)
        return int(total // batches) if batches else None
    return _validations(view)


def _batches(view: View) -> int | None:
    """Batches of an epoch; None if the patches are not known."""
    phase, place = view.phases.get("train"), "loaders.train.slice_builder"
    patch, stride = view.get(f"{place}.patch_shape"), view.get(f"{place}.stride_shape")
    size, name = view.get("loaders.batch_size", 1), view.get(f"{place}.name")
    is_known = name in ("SliceBuilder", "FilterSliceBuilder") and is_shape(patch) and is_shape(stride)
    if phase is None or not phase.files or not is_known or not isinstance(size, int) or size < 1:
        return None
    patches = 0
    for file in phase.files:
        if file.raw is None or file.is_smaller_than(patch) or len(file.raw.spatial) != 3:
            return None
        patches += math.prod(map(datasets.patches_along, file.raw.spatial, patch, stride))
    return math.ceil(patches / size)
