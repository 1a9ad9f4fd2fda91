"""What ``resume`` needs and pytorch-3dunet does not keep: the scheduler, and that a checkpoint's iteration is over.

Without that, the learning rate scheduler begins anew, and the iteration and its validation are done a second time.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from p3d_regression.model.contract import mapping
from p3d_regression.training import group
from p3d_regression.upstream import checkpoints
from p3d_regression.upstream.log import console, say

#: The key in a checkpoint, which pytorch-3dunet ignores.
KEY = "p3d_regression_resume"


def kept(trainer: Any) -> dict[str, Any]:
    """What is added to a checkpoint of a trainer."""
    scheduler = _state_of(getattr(trainer, "scheduler", None))
    return {KEY: {"scheduler": scheduler, "finished": int(trainer.num_iterations), "run": group.run_id()}}


def _state_of(scheduler: Any) -> dict[str, Any] | None:
    """How far a scheduler is, as plain data; None if there is none, or it holds something else.

    What its config says is left out: a resumed training may have other numbers.
    """
    if not hasattr(scheduler, "state_dict"):
        return None
    given = inspect.signature(type(scheduler)).parameters.keys() - {"last_epoch"}
    state = {key: value for key, value in scheduler.state_dict().items() if key not in given}
    return {"name": type(scheduler).__name__, "state": state} if _is_plain(state) else None


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str | int) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def restore(trainer: Any, config: Mapping[str, Any]) -> None:
    """Let a resumed training go on where it was.

    Args:
        trainer: of pytorch-3dunet, with the weights and the optimizer of its checkpoint.
        config: of the training.
    """
    path = mapping(config.get("trainer")).get("resume")
    if not isinstance(path, str):
        return
    held = checkpoints.load_checkpoint(path, mmap=True).get(KEY)
    if isinstance(held, Mapping) and held.get("finished") == trainer.num_iterations:
        trainer.num_iterations += 1
    scheduler: Any = getattr(trainer, "scheduler", None)
    if not hasattr(scheduler, "load_state_dict"):
        return
    own, state = type(scheduler).__name__, mapping(held).get("scheduler")
    if not isinstance(state, Mapping):
        console().warning(
            f"the checkpoint does not hold the state of the learning rate scheduler: {own} begins anew. Checkpoints "
            "of this training will hold it."
        )
    elif state.get("name") != own:
        say(f"learning rate scheduler: {own} begins, in place of the {state.get('name')} of the checkpoint")
    else:
        scheduler.load_state_dict({**scheduler.state_dict(), **mapping(state.get("state"))})
        rates = ", ".join(f"{group['lr']:.4g}" for group in trainer.optimizer.param_groups)
        say(f"learning rate scheduler: {own} goes on after step {scheduler.last_epoch}, learning rate {rates}")
