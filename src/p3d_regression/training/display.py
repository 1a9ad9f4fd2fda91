"""A training on a terminal: one bar instead of a line for each iteration, and what came out at its end.

All lines of the log are in ``train.log`` as well. Where output is no terminal, nothing here is used.
"""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from p3d_regression.upstream.log import handlers

if TYPE_CHECKING:
    from rich.console import Console

#: Environment variable: ``off`` for the log as pytorch-3dunet prints it.
SETTING = "P3D_REGRESSION_PROGRESS"

#: Starts of lines that the bar shows instead.
_SHOWN = (
    "Training iteration [",
    "Training stats.",
    "Validating...",
    "Validation finished.",
    "Saving checkpoint to",
    "Saving new best evaluation metric",
)


def is_wanted() -> bool:
    """Whether a person looks at the output."""
    return sys.stdout.isatty() and os.environ.get(SETTING, "").lower() not in ("off", "0", "no")


class _Shorter(logging.Filter):
    """Leaves out lines that the bar shows, and shows a config as a table."""

    def __init__(self, console: "Console", rows: Callable[[Mapping[str, Any]], list[tuple[str, str]]]) -> None:
        super().__init__()
        self._console, self._rows = console, rows

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, Mapping):
            self._show(record.msg)
            return False
        # the layers of the network
        is_network = hasattr(record.msg, "state_dict")
        return not (is_network or (isinstance(record.msg, str) and record.msg.startswith(_SHOWN)))

    def _show(self, config: Mapping[str, Any]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in self._rows(config):
            table.add_row(Text(name, "dim"), Text(value))
        self._console.print(table)


def shorten() -> None:
    """From here on pytorch-3dunet's lines are printed as a person reads them."""
    from rich.console import Console

    from p3d_regression.training.record import summary

    shorter = _Shorter(Console(highlight=False), summary)
    for handler in handlers():
        handler.addFilter(shorter)


class Bar:
    """The bar of one training.

    Args:
        trainer: that of pytorch-3dunet.
        metric: name of the score.
        guesses: scores without a network by name, once they are known.
        is_better: whether a score is better than another one.
    """

    def __init__(
        self,
        trainer: Any,
        metric: str,
        guesses: Callable[[], Mapping[str, float]],
        is_better: Callable[[float, float], bool],
    ) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.text import Text

        self._trainer, self._metric, self._guesses, self._is_better = trainer, metric, guesses, is_better
        self._console = Console(highlight=False)
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        self._progress, self._scores = Progress(*columns), Text()
        self._live = Live(Group(self._progress, self._scores), console=self._console, transient=True)
        total, self._first = trainer.max_num_iterations, trainer.num_iterations - 1
        # pytorch-3dunet counts from 1
        self._task = self._progress.add_task("", total=total, completed=self._first, text="")
        self._patches, self._started = 0, time.monotonic()
        self._loss = self._last = math.nan
        self.best: tuple[float, int] | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts, the bar is at the end of the output, and lines of the log appear above it."""
        with self._live:
            # rich has replaced the stream, so that lines do not break the bar
            before = [(handler, handler.setStream(sys.stdout)) for handler in handlers()]
            try:
                yield
            finally:
                for handler, stream in before:
                    if stream is not None:
                        handler.setStream(stream)

    @contextmanager
    def validating(self) -> Iterator[None]:
        """While this lasts, pytorch-3dunet shows no bar of its own."""
        module = sys.modules[type(self._trainer).__module__]
        self._show("validating")
        begun = time.monotonic()
        with mock.patch.object(module, "tqdm", lambda batches: batches, create=True):
            yield
        self._started += time.monotonic() - begun

    def step(self, patches: int) -> None:
        """An iteration begins."""
        self._patches += patches
        self._progress.update(self._task, completed=self._trainer.num_iterations - 1)
        self._show()

    def stats(self, phase: str, loss: float, score: float) -> None:
        """A loss and a score were logged."""
        if phase == "train":
            self._loss = loss
            return
        self._last = score
        if self.best is None or self._is_better(score, self.best[0]):
            self.best = score, self._trainer.num_iterations
        self._show()

    def _show(self, more: str = "") -> None:
        self._progress.update(self._task, text=", ".join(filter(None, [*self._speed(), more])))
        self._scores.plain = ", ".join(self._values())

    def _speed(self) -> Iterator[str]:
        seconds = time.monotonic() - self._started
        done = self._progress.tasks[0].completed
        if self._patches > 1 and seconds > 1:
            yield f"{self._patches / seconds:.3g} patches/s"
            per_iteration = seconds / max(1, done - self._first)
            yield f"{_time(per_iteration * (self._trainer.max_num_iterations - done))} left"

    def _values(self) -> Iterator[str]:
        if math.isfinite(self._loss):
            yield f"loss {self._loss:.4g}"
        if self.best is not None:
            yield f"{self._metric} {self._last:.4g}, best {self.best[0]:.4g}"
            if name := self._best_guess():
                yield f"{name} {self._guesses()[name]:.4g}"

    def _best_guess(self) -> str:
        """The name of the guess that is hardest to beat; empty where none is known."""
        found = ""
        for name, value in self._guesses().items():
            if not found or self._is_better(value, self._guesses()[found]):
                found = name
        return found

    def finish(self) -> None:
        """Say what came out."""
        if self.best is None:
            return
        score, iteration = self.best
        lines = [f"best {self._metric} {score:.6g}, after iteration {iteration}"]
        if name := self._best_guess():
            guess = self._guesses()[name]
            verb = "better" if self._is_better(score, guess) else "NOT better"
            lines.append(f"{verb} than {name}, {guess:.6g}")
        directory = Path(self._trainer.checkpoint_dir)
        best, written = directory / "best_checkpoint.pytorch", directory.parent / "predict.yml"
        lines.append(f"checkpoint: {best}")
        if written.is_file():
            lines.append(f"next: predict3dunet --config {written}")
        else:
            lines.append(f"next: p3d-regression init predict {best} FILES, which writes predict.yml")
        for line in lines:
            self._console.print(line, markup=False, soft_wrap=True)


def _time(seconds: float) -> str:
    """A duration, as short as it helps.

    >>> _time(45), _time(600), _time(9000)
    ('45 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
