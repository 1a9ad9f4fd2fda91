"""A training that is followed: its log and its scores go into files, and on a terminal into a bar."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from p3d_regression import group
from p3d_regression._patching import wrap_method
from p3d_regression.training import display
from p3d_regression.training.plan import Plan
from p3d_regression.training.record import LOG, Metrics
from p3d_regression.upstream.log import Copy

#: What a trainer must have, so that it can be followed.
_NEEDED = ("fit", "validate", "_forward_pass", "_log_stats", "optimizer", "num_epochs", "max_num_iterations")

_copy: Copy | None = None


def prepare() -> None:
    """Keep the log from here on, for a training that uses this project."""
    global _copy
    discard()
    if group.is_main():
        _copy = Copy()
        _copy.start()
        if display.is_wanted():
            display.shorten()


def discard() -> None:
    """Keep no log."""
    global _copy
    if _copy is not None:
        _copy.stop()
        _copy = None


def follow(trainer: Any, plan: Plan, guesses: Callable[[], Mapping[str, float]], *, is_resumed: bool) -> None:
    """Follow a training, if it is built in a way that is known.

    Args:
        trainer: that of pytorch-3dunet.
        plan: of the training.
        guesses: scores without a network by name, once they are known.
        is_resumed: whether it goes on with another one, and so do its files.
    """
    directory = getattr(trainer, "checkpoint_dir", None)
    if not group.is_main() or not directory or any(not hasattr(trainer, name) for name in _NEEDED):
        discard()
        return
    if _copy is None:
        prepare()
    if _copy is not None:
        _copy.write_to(Path(directory) / LOG)
    metrics = Metrics(Path(directory), plan.metric_name, trainer.num_iterations if is_resumed else 0)
    better = bool(trainer.eval_score_higher_is_better)

    def is_better(score: float, other: float) -> bool:
        return score > other if better else score < other

    bar = display.Bar(trainer, plan.metric_name, guesses, is_better) if display.is_wanted() else None
    _Followed(trainer, metrics, bar).start()


class _Followed:
    """One training.

    Args:
        trainer: that of pytorch-3dunet.
        metrics: its table.
        bar: None where there is no terminal.
    """

    def __init__(self, trainer: Any, metrics: Metrics, bar: display.Bar | None) -> None:
        self._trainer, self._metrics, self._bar = trainer, metrics, bar
        self._validates = False

    def start(self) -> None:
        for name in ("fit", "validate", "_forward_pass", "_log_stats"):
            wrap_method(self._trainer, name, getattr(self, f"_{name.lstrip('_')}"))

    def _fit(self, original: Callable[[], Any]) -> Any:
        try:
            with self._bar.shown() if self._bar else nullcontext():
                result = original()
            if self._bar:
                self._bar.finish()
            return result
        finally:
            discard()

    def _validate(self, original: Callable[[], Any]) -> Any:
        self._validates = True
        try:
            with self._bar.validating() if self._bar else nullcontext():
                return original()
        finally:
            self._validates = False

    def _forward_pass(self, original: Callable[..., Any], raw: Any, *rest: Any) -> Any:
        if self._bar and not self._validates:
            first = raw[0] if isinstance(raw, tuple | list) else raw
            self._bar.step(int(first.shape[0]) * group.size())
        return original(raw, *rest)

    def _log_stats(self, original: Callable[..., Any], phase: str, loss: float, score: Any) -> Any:
        result = original(phase, loss, score)
        self._metrics.add(self._trainer, phase, loss, score)
        if self._bar:
            self._bar.stats(phase, float(loss), float(score))
        return result
