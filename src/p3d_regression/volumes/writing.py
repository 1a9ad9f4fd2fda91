"""Files that are written as a whole."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, create: Callable[[Path], object]) -> None:
    """Create a file or directory, which gets its name when it is complete; if anything fails, nothing is left.

    Args:
        path: of it. A file that has the name is replaced.
        create: writes it at the path that it is given.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        create(beside)
        beside.replace(path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        with suppress(OSError):
            beside.unlink()
