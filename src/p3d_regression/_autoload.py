"""The entry point that torch calls at the end of ``import torch`` (group ``torch.backends``).

Torch turns any exception that leaves :func:`autoload` into a failed ``import torch``, for every program of the
environment. So this module needs nothing that could be missing, and nothing leaves it.
"""

import sys


def autoload() -> None:
    """Arm the plugin; on any failure say so in one warning and leave torch and upstream alone."""
    try:
        from .upstream import activate

        activate()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _warn(
            f"p3d-regression could not activate itself ({type(error).__name__}: {error}). pytorch3dunet runs "
            "without it and IGNORES model.final_activation. `p3d-regression doctor` tells more."
        )


def _warn(message: str) -> None:
    # `warnings` is looked up, not imported: a broken environment must not be able to break this either.
    # Under `python -W error` warn() raises; the message then goes to stderr.
    try:
        sys.modules["warnings"].warn(message, RuntimeWarning, stacklevel=3)
    except Exception:
        if sys.stderr is not None:
            sys.stderr.write(message + "\n")
