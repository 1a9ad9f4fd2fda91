"""What a checkpoint remembers of its model, and what happens when a config disagrees.

The memory is a small mapping of plain data in the metadata of a ``state_dict``, beside the version numbers that torch
keeps there: no new key, readable by a weights-only load, ignored by upstream and by torch.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from p3d_regression import __version__
from p3d_regression.activations.spec import KEY
from p3d_regression.errors import CheckpointMismatchError, ConfigError

if TYPE_CHECKING:
    from p3d_regression.activations.final import FinalActivation

#: Our key in the metadata of the U-Net.
STAMP = "p3d_regression"

_new_head = ContextVar("new_head", default=False)


def stamp(metadata: MutableMapping[str, Any], final: "FinalActivation") -> None:
    """Write a model's final activation into the metadata of its ``state_dict``."""
    metadata[STAMP] = {KEY: final.plain, "version": __version__, "plugins": final.plugins}


def remembered(metadata: Mapping[str, Any], channels: int) -> "FinalActivation | None":
    """Read the final activation that a checkpoint was trained with.

    Args:
        metadata: what the ``state_dict`` says of the U-Net.
        channels: output channels of the model.

    Returns:
        None if the checkpoint says nothing: it was trained without this project's key.

    Raises:
        CheckpointMismatchError: it says something that cannot be built here.
    """
    kept = metadata.get(STAMP)
    if kept is None:
        return None
    from p3d_regression.activations.registry import resolve

    try:
        return resolve(kept[KEY], channels)
    except (ConfigError, TypeError, KeyError) as error:
        raise CheckpointMismatchError(_not_here(kept, error)) from error


def _not_here(kept: Any, error: Exception) -> str:
    known = kept if isinstance(kept, Mapping) else {}
    plugins = ", ".join(map(str, known.get("plugins") or []))
    fix = f"install {plugins}" if plugins else f"install p3d-regression {known.get('version', 'of its time')}"
    return (
        f"model.{KEY}: the checkpoint was trained with {known.get(KEY, kept)!r}, which p3d-regression {__version__} "
        f"cannot build here; {fix}, or whatever it was trained with. ({error})"
    )


@contextmanager
def new_head_allowed() -> Iterator[None]:
    """While this lasts, a checkpoint is a start for another model: its final activation need not be kept."""
    token = _new_head.set(True)
    try:
        yield
    finally:
        _new_head.reset(token)


def is_new_head(own: "FinalActivation", kept: "FinalActivation") -> bool:
    """Whether a model goes on with its own final activation on the weights of another one.

    Args:
        own: the config's.
        kept: the checkpoint's.

    Raises:
        CheckpointMismatchError: they differ, and the checkpoint was not loaded as ``trainer.pre_trained``.
    """
    if own.plain == kept.plain:
        return False
    if _new_head.get():
        return True
    raise CheckpointMismatchError(
        f"model.{KEY}: the config says {own}, the checkpoint was trained with {kept}. The weights were fitted through "
        f"the checkpoint's, so that every prediction through another one is wrong. Either delete the line {KEY} from "
        f"the config, and the checkpoint's is used; or, if you want to train these weights further with {own}, name "
        "the checkpoint as trainer.pre_trained (not as resume). From Python: load the weights first, then call "
        "p3d_regression.set_final_activation(model, ...)."
    )
