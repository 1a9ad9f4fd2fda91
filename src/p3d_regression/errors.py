"""The errors a user can meet. Those about a config name the key, the value, what is allowed and a fix."""

import re
import textwrap
from dataclasses import dataclass

from p3d_regression.fix import DELETE, NO_FIX, Fix, advise


@dataclass(frozen=True, init=False)
class Found:
    """What is wrong with a config.

    Attributes:
        key: where in the config, with dots, such as ``model.final_sigmoid``; empty if it is the whole config.
        message: what is wrong, with the user's value, and what is allowed; one or two sentences.
        fix: what to do about it. A plugin may give lines of text, which are shown as they are.
    """

    key: str
    message: str
    fix: Fix

    def __init__(self, key: str, message: str, fix: Fix | str = NO_FIX) -> None:
        for name, value in (("key", key), ("message", message), ("fix", advise(fix) if isinstance(fix, str) else fix)):
            object.__setattr__(self, name, value)

    @property
    def section(self) -> str:
        """The section of the config that the key is in, such as ``model``."""
        return re.split(r"[.\[]", self.key, maxsplit=1)[0]


class ConfigError(ValueError):
    """A value in the config that is not understood, or that contradicts the rest of it.

    Attributes:
        found: what is wrong and what to do about it.
    """

    def __init__(self, key: str, message: str, fix: Fix | str = NO_FIX) -> None:
        super().__init__(key, message, fix)
        self.found = Found(key, message, fix)

    def __str__(self) -> str:
        key, message, fix = self.found.key, self.found.message, self.found.fix
        start = f"{key}: {message}" if key else message
        if any(change.value is not DELETE for change in fix.changes):
            return f"{start} Write:\n{textwrap.indent(str(fix), '  ')}"
        return f"{start} Fix: {fix}." if fix else start


class CheckpointMismatchError(ConfigError):
    """The config asks for another final activation or scaling than the checkpoint was trained with."""


class CheckpointSaveError(RuntimeError):
    """A checkpoint cannot be written; those that are there stay as they are."""


class DemoError(RuntimeError):
    """The demo cannot start or go on; the message says why, in the user's terms."""


class EvaluationError(RuntimeError):
    """Predictions cannot be compared with the truth; nothing was written."""


class ExportError(RuntimeError):
    """A checkpoint cannot be written in another form; nothing was written."""


class NonFiniteLossError(RuntimeError):
    """The loss of a batch is NaN or infinite; training has stopped before the weights became so too."""


class UnsupportedUpstreamError(RuntimeError):
    """The installed pytorch3dunet lacks what a used configuration key needs, or has changed it."""


class VolumesError(RuntimeError):
    """Volumes cannot be read, paired or converted; nothing was written."""
