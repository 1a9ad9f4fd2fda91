"""What ``resume`` needs and pytorch-3dunet does not keep, so that a training that was interrupted is one that was not.

Without that, the learning rate scheduler begins anew, the iteration of the checkpoint and its validation are done a
second time, the rest of the epoch is skipped, and patches and augmentation are drawn as in another training.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from p3d_regression import group
from p3d_regression.model.contract import mapping
from p3d_regression.training import randomness
from p3d_regression.upstream import checkpoints
from p3d_regression.upstream.log import console, say

if TYPE_CHECKING:
    from p3d_regression.training.batches import Recorder

#: The key in a checkpoint, which pytorch-3dunet ignores.
KEY = "p3d_regression_resume"


@dataclass(frozen=True)
class Position:
    """Where in an epoch a training is.

    Attributes:
        batches: of the epoch that are done.
        of: how many it has; another number means other volumes, batches or processes.
        processes: how many train together.
        start: the states of the generators before the epoch, one for each process.
        now: the same now.
    """

    batches: int
    of: int
    processes: int
    start: list[dict[str, Any]]
    now: list[dict[str, Any]]


def position_of(trainer: Any, batches: int, start: dict[str, Any]) -> Position:
    """The position of a training, which all its processes ask for together.

    Args:
        trainer: of pytorch-3dunet.
        batches: of the epoch that are done.
        start: the states of the generators of this process before the epoch.
    """
    loader = trainer.loaders["train"]
    now = randomness.state_of(loader)
    pairs = group.gathered((start, now))
    return Position(batches, len(loader), group.size(), [start for start, _ in pairs], [now for _, now in pairs])


def kept(trainer: Any, position: Position | None = None) -> dict[str, Any]:
    """What is added to a checkpoint of a trainer."""
    held = {
        "scheduler": _state_of(getattr(trainer, "scheduler", None)),
        "finished": int(trainer.num_iterations),
        "run": group.run_id(),
        "position": asdict(position) if position else None,
        # of a training in float16
        "gradient_scaler": scaler.state_dict() if (scaler := getattr(trainer.optimizer, "scaler", None)) else None,
    }
    return {KEY: held}


class Rest:
    """Stands in for the loader of an epoch that is half done: gives the batches that are left.

    Those that are done are read once more, so that the generators of worker processes get to where they were.

    Args:
        loader: of the training.
        recorder: its stand-in for the sampler, if there is one.
        position: where the training was.
    """

    def __init__(self, loader: Any, recorder: "Recorder | None", position: Position) -> None:
        self._loader = loader
        self._recorder = recorder
        self._position = position

    def __iter__(self) -> Iterator[Any]:
        own = group.rank()
        randomness.restore(self._position.start[own], self._loader)
        batches = iter(self._loader)
        for _ in range(self._position.batches):
            next(batches)
            if self._recorder is not None:
                self._recorder.next()
        randomness.restore(self._position.now[own], self._loader)
        yield from batches

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)


def _state_of(scheduler: Any) -> dict[str, Any] | None:
    """How far a scheduler is, as plain data; None if there is none, or it holds something else.

    What its config says is left out: a resumed training may have other numbers. So is a method that was replaced.
    """
    if not hasattr(scheduler, "state_dict"):
        return None
    given = inspect.signature(type(scheduler)).parameters.keys() - {"last_epoch"}
    state = {key: value for key, value in scheduler.state_dict().items() if key not in given and key != "step"}
    return {"name": type(scheduler).__name__, "state": state} if _is_plain(state) else None


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str | int) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def restore(trainer: Any, config: Mapping[str, Any]) -> Position | None:
    """Let a resumed training go on where it was.

    Args:
        trainer: of pytorch-3dunet, with the weights and the optimizer of its checkpoint.
        config: of the training.

    Returns:
        Where in an epoch it goes on; None if that is not known.
    """
    path = mapping(config.get("trainer")).get("resume")
    if not isinstance(path, str):
        return None
    held = checkpoints.load_checkpoint(path, mmap=True).get(KEY)
    position = None
    if isinstance(held, Mapping) and held.get("finished") == trainer.num_iterations:
        trainer.num_iterations += 1
        position = _restore_position(trainer, mapping(held.get("position")))
    _restore_scheduler(trainer, held)
    scaler, state = getattr(trainer.optimizer, "scaler", None), mapping(held).get("gradient_scaler")
    if scaler is not None and state:
        scaler.load_state_dict(state)
    return position


def _restore_position(trainer: Any, held: Mapping[str, Any]) -> Position | None:
    if not held:
        return None
    position, loader = Position(**held), trainer.loaders["train"]
    patches = -(-len(loader.dataset) // group.size())
    batches = -(-patches // loader.batch_size)
    if (position.of, position.processes) != (batches, group.size()):
        say(
            f"the checkpoint is of a training with {position.of} batches in an epoch and {position.processes} "
            f"process(es), this one has {batches} and {group.size()}: it goes on with the next epoch, and patches and "
            "augmentation are drawn anew"
        )
        return None
    if position.batches < position.of:
        # pytorch-3dunet goes on with the next epoch
        trainer.num_epochs -= 1
        say(f"goes on after batch {position.batches} of {position.of} in epoch {trainer.num_epochs}")
    return position


def _restore_scheduler(trainer: Any, held: object) -> None:
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
        rates = ", ".join(f"{part['lr']:.4g}" for part in trainer.optimizer.param_groups)
        say(f"learning rate scheduler: {own} goes on after step {scheduler.last_epoch}, learning rate {rates}")
