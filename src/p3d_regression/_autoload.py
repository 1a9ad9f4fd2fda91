"""The entry point that torch calls at the end of ``import torch`` (group ``torch.backends``).

Torch turns any exception that leaves :func:`autoload` into a failed ``import torch``, for every program of the
environment. So this module needs nothing that could be missing, and nothing leaves it.
"""

import sys


def autoload() -> None:
    """Arm the plugin; on any failure say so in one warning and leave torch and pytorch-3dunet alone."""
    try:
        from .patches.activation import activate

        activate()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _warn(error)


def _warn(error: BaseException) -> None:
    # Whatever is broken here too, the environment's streams or the error's own text, must stay in here.
    try:
        message = (
            f"p3d-regression could not activate itself ({type(error).__name__}: {error}). pytorch-3dunet runs "
            "without it and IGNORES model.final_activation. `p3d-regression doctor` gives details."
        )
        try:
            # looked up, not imported: a broken environment must not be able to break this
            sys.modules["warnings"].warn(message, RuntimeWarning, stacklevel=3)
        except Exception:
            # no such module, or `python -W error`
            sys.stderr.write(message + "\n")
    except Exception:
        pass
