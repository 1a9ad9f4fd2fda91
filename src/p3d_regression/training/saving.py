"""Checkpoints of a training that cannot be spoiled: written beside the last good ones, which they replace as a whole.

The content is what pytorch-3dunet's own function writes, and what it would forget.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from p3d_regression.errors import CheckpointSaveError, ConfigError
from p3d_regression.fix import advise

#: Start of the name of the directory that checkpoints are written in.
_PARTIAL = ".saving-"

_LOCK = ".p3d-regression.lock"

#: What is added to the content of a checkpoint while it is saved as a whole; None while it is not.
_more: ContextVar[Mapping[str, Any] | None] = ContextVar("more", default=None)

#: Directories that trainings of this process write, with the file that is locked.
_locked: dict[Path, BinaryIO] = {}


@contextmanager
def safely(more: Mapping[str, Any]) -> Iterator[None]:
    """While this lasts, pytorch-3dunet's function saves a checkpoint as a whole or not at all.

    Args:
        more: is added to its content, under keys that pytorch-3dunet does not know.
    """
    token = _more.set(more)
    try:
        yield
    finally:
        _more.reset(token)


def save(original: Callable[..., Any], state: Any, is_best: bool, checkpoint_dir: str) -> Any:
    """Save a checkpoint with pytorch-3dunet's function.

    Raises:
        CheckpointSaveError: it cannot be written; those that are there stay as they are.
    """
    if (more := _more.get()) is None:
        return original(state, is_best, checkpoint_dir)
    directory = Path(checkpoint_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)  # of a training that was killed while it saved
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=directory))
        try:
            result = original({**state, **more}, is_best, str(partial))
            for path in sorted(partial.iterdir()):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            for path in sorted(partial.iterdir()):
                path.replace(directory / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointSaveError(_reason(directory, error)) from error
    return result


def _reason(directory: Path, error: Exception) -> str:
    why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0][:200]
    with suppress(OSError):
        # torch does not say why it cannot write
        free = shutil.disk_usage(directory).free
        why = f"{why}; {free / 2**20:.0f} MiB are free" if free < 2**30 else why
    return f"the checkpoint cannot be written to {directory} ({why}). The checkpoints that are there stay as they are."


def claim(directory: str) -> None:
    """Let no other training write to a directory while this process lives, where the file system can tell.

    Raises:
        ConfigError: another one does.
    """
    try:
        import fcntl
    except ImportError:
        return  # Windows
    place = Path(directory).absolute()
    if place in _locked:
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = (place / _LOCK).open("ab")
    except OSError:
        return  # a rule or pytorch-3dunet says so
    try:
        # the kernel gives it back however the process ends
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            "trainer.checkpoint_dir",
            f"another training is running and writes its checkpoints to {directory}; each would overwrite those of the "
            "other.",
            advise("write another directory as trainer.checkpoint_dir, or wait until that training has ended"),
        ) from None
    except OSError:
        file.close()  # a file system without locks
        return
    _locked[place] = file
