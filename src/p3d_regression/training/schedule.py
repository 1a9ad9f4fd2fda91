"""When the learning rate scheduler steps: ``lr_scheduler: {step_per: iteration}``, or epoch.

pytorch-3dunet steps it at validations, so that the learning rate depends on ``validate_after_iters``.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.model.contract import mapping
from p3d_regression.training.resuming import Position
from p3d_regression.upstream.builders import STEP_PER

PLACE = f"lr_scheduler.{STEP_PER}"

ITERATION, EPOCH, VALIDATION = "iteration", "epoch", "validation"
UNITS = (ITERATION, EPOCH, VALIDATION)


def step_per(section: object) -> str:
    """After what the scheduler of a section ``lr_scheduler`` steps.

    Raises:
        ConfigError: it is not one of :data:`UNITS`, or the scheduler needs scores, which only validations have.

    >>> step_per({"name": "StepLR"}), step_per({"name": "StepLR", "step_per": "epoch"})
    ('validation', 'epoch')
    """
    held = mapping(section)
    value = held.get(STEP_PER, VALIDATION)
    if value not in UNITS:
        raise ConfigError(PLACE, f"{reprlib.repr(value)} is not one of {', '.join(UNITS)}.", write(PLACE, ITERATION))
    if value != VALIDATION and held.get("name") == "ReduceLROnPlateau":
        message = f"is {value}, but ReduceLROnPlateau needs the score of a validation."
        raise ConfigError(PLACE, message, write(PLACE, VALIDATION))
    return str(value)


def without(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config without the key, which torch's schedulers do not take."""
    section = config.get("lr_scheduler")
    if not (isinstance(section, Mapping) and STEP_PER in section):
        return config
    return {**config, "lr_scheduler": {key: value for key, value in section.items() if key != STEP_PER}}


def use(trainer: Any, unit: str, position: Position | None, *, is_resumed: bool) -> None:
    """Let the scheduler of a trainer step after each iteration or epoch.

    Args:
        trainer: of pytorch-3dunet.
        unit: one of :data:`UNITS`.
        position: where a resumed training goes on in an epoch.
        is_resumed: whether it is one.
    """
    scheduler = getattr(trainer, "scheduler", None)
    if scheduler is None or unit == VALIDATION:
        return
    step = scheduler.step
    # at validations, where pytorch-3dunet calls it
    scheduler.step = lambda *_: None
    if unit == ITERATION:
        # not after a batch whose gradients were infinite in float16: the optimizer has not stepped either
        trainer.optimizer.register_step_post_hook(lambda *_: step())
        return
    if is_resumed and (position is None or position.batches == position.of):
        # it goes on with the next epoch, and the one of the checkpoint is over
        step()
    train = trainer.train

    def epoch() -> Any:
        should_stop = train()
        if not should_stop:
            step()
        return should_stop

    trainer.train = epoch
