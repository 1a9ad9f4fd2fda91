"""pytorch-3dunet's own loggers: for lines that the user should see among its own, and to keep all of its lines."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from p3d_regression._version import __version__

#: Lines that are kept until there is a file for them.
_MOST_LINES = 10_000


def say(line: str) -> None:
    """Tell the user what the plugin did, in a line of the log."""
    console().info(f"p3d-regression {__version__}: {line}")


def console() -> logging.Logger:
    """The logger for what the user should see: its lines are printed among upstream's, and like them."""
    from pytorch3dunet.unet3d.utils import get_logger

    logger: logging.Logger = get_logger("P3DRegression")
    return logger


def handlers() -> list[logging.StreamHandler]:  # type: ignore[type-arg]
    """What prints the lines of upstream's loggers."""
    from pytorch3dunet.unet3d import utils

    loggers = getattr(utils, "loggers", {})
    return [found for logger in loggers.values() for found in logger.handlers if type(found) is logging.StreamHandler]


@contextmanager
def without(start: str) -> Iterator[None]:
    """While this lasts, upstream's loggers drop lines that start with this."""
    from pytorch3dunet.unet3d import utils

    def is_kept(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(start)

    loggers = list(getattr(utils, "loggers", {}).values())
    for logger in loggers:
        logger.addFilter(is_kept)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_kept)


class Copy(logging.Handler):
    """Copies all lines of upstream's loggers into a file, once there is one; the lines before it as well."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s [%(threadName)s] %(levelname)s %(name)s - %(message)s"))
        self._lines: list[str] = []
        self._path: Path | None = None

    def start(self) -> None:
        """From here on lines are kept."""
        # upstream's loggers hand their lines on to it; some of them are not there yet
        logging.getLogger().addHandler(self)

    def stop(self) -> None:
        """Keep no further lines."""
        logging.getLogger().removeHandler(self)
        self._lines.clear()

    def write_to(self, path: Path) -> None:
        """Write what was kept, and all that follows, to the end of a file."""
        self._path = path
        self._write("\n".join(self._lines))
        self._lines.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a line."""
        from pytorch3dunet.unet3d import utils

        if record.name not in getattr(utils, "loggers", {}):
            self._print_as_before(record)
            return
        line = self.format(record)
        if self._path is not None:
            self._write(line)
        elif len(self._lines) < _MOST_LINES:
            self._lines.append(line)

    def _print_as_before(self, record: logging.LogRecord) -> None:
        """Let logging print a warning of other packages that has no handler, as it does where none is at the root."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return
            logger = logger.parent
        if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)

    def _write(self, text: str) -> None:
        # a full disk is no reason to stop a training
        with suppress(OSError):
            if text and self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(f"{text}\n")
