"""A progress bar for commands that read volumes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from p3d_regression.cli import group

if TYPE_CHECKING:
    from p3d_regression.checks.reading import Progress


@contextmanager
def progress_bar() -> "Iterator[Progress]":
    """A progress bar on a terminal, and an end of the reading on SIGINT."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def insist() -> None:
        # Python drops an exception that a signal handler raises in a destructor: end at the next piece then
        group.insist()
        if interrupted:
            raise KeyboardInterrupt

    class Shown:
        def start(self, what: str, voxels: int) -> None:
            insist()
            # one line on the screen, also for hundreds of files
            for task in bar.task_ids:
                bar.remove_task(task)
            self.task = bar.add_task(what, total=voxels or None)

        def advance(self, voxels: int) -> None:
            insist()
            bar.advance(self.task, voxels)

    console = Console(stderr=True)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
            yield Shown()
    finally:
        signal.signal(signal.SIGINT, before)
