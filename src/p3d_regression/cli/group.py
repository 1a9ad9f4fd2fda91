"""How every command ends: with output that cannot be written, and on SIGTERM."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

import click


class Group(click.Group):
    """Commands that report failing output in one line, and that clean up on SIGTERM."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are needed."""
        return list(self.commands)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """As in click.

        Raises:
            SystemExit: also where standard output cannot be written: with 2 for ``check``, whose 1 means that a config
                has errors, else with 1.
        """
        command = next(iter(sys.argv[1:] if args is None else args), "")
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            return super().main(args, *rest, **more)
        except OSError as error:
            # a failing file has a name; what a training cannot write is not output of this command
            if error.filename is not None or command == "run":
                raise
            _report(error)
            sys.exit(2 if command == "check" else 1)
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


_is_stopped = False


def _stop(*_: object) -> None:
    global _is_stopped
    _is_stopped = True
    insist()


def insist() -> None:
    """End after SIGTERM, for loops that go on: Python drops an exception that a signal handler raises in a destructor.

    Raises:
        SystemExit: after SIGTERM, so that temporary files are removed and child processes end; with the status that a
            shell gives for it.
    """
    if _is_stopped:
        raise SystemExit(128 + signal.SIGTERM)


def _report(error: OSError) -> None:
    _discard(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        try:
            click.echo(f"Error: cannot write to standard output: {error.strerror}", err=True)
        except OSError:
            _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Drop the rest of a buffer: the interpreter would try to write it at its end, and exit with another status."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
