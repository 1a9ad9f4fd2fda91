"""What a checkpoint remembers of its model, and what happens when a config disagrees.

The memory is a small mapping of plain data in the metadata of a ``state_dict``, beside the version numbers that torch
keeps there: no new key, readable by a weights-only load, ignored by upstream and by torch.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p3d_regression._version import __version__
from p3d_regression.activations.spec import KEY
from p3d_regression.errors import CheckpointMismatchError, ConfigError
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.scaling.spec import Spec

if TYPE_CHECKING:
    from p3d_regression.activations.final import FinalActivation
    from p3d_regression.scaling.target import TargetScaling

logger = logging.getLogger(__name__)

#: Our key in the metadata of the U-Net.
METADATA_KEY = "p3d_regression"

#: Holds what was trained with, where that is more than an activation. A p3d-regression that knows of no scaling finds
#: no activation then, and refuses the checkpoint; it would predict in standard deviations.
_OUTPUT = "output"

_new_head = ContextVar("new_head", default=False)


@dataclass(frozen=True)
class Memory:
    """What a model was trained with."""

    final: "FinalActivation"
    scaling: "TargetScaling | None" = None


def to_plain(memory: Memory) -> dict[str, Any]:
    """What is written into the metadata of a ``state_dict``, under :data:`METADATA_KEY`."""
    output: dict[str, Any] = {KEY: memory.final.plain}
    if memory.scaling is not None:
        output = {_OUTPUT: {**output, SCALING: memory.scaling.plain}}
    return {**output, "version": __version__, "plugins": memory.final.plugins}


def from_metadata(metadata: Mapping[str, Any], channels: int) -> Memory | None:
    """Read what a checkpoint was trained with.

    Args:
        metadata: what the ``state_dict`` says of the U-Net.
        channels: output channels of the model.

    Returns:
        None if the checkpoint says nothing: it was trained without this project's key.

    Raises:
        CheckpointMismatchError: it says something that cannot be built here.
    """
    kept = metadata.get(METADATA_KEY)
    if kept is None:
        return None
    try:
        memory = from_plain(kept, channels)
        plugins = list(map(str, kept.get("plugins", [])))
    except (ConfigError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise CheckpointMismatchError(_not_here(kept, str(error))) from error
    _check_plugins(kept, plugins, memory.final)
    return memory


def from_plain(kept: Mapping[str, Any], channels: int) -> Memory:
    """Read what :func:`to_plain` has written.

    Raises:
        ConfigError, KeyError: it holds something else.
    """
    from p3d_regression.activations.registry import resolve
    from p3d_regression.scaling.target import restored

    output = kept.get(_OUTPUT, kept)
    more = output.keys() - {KEY, SCALING, "version", "plugins"} | kept.keys() - {_OUTPUT, KEY, "version", "plugins"}
    if more:
        raise ConfigError(f"it holds {', '.join(sorted(map(str, more)))}, which this version does not know")
    final = resolve(output[KEY], channels)
    return Memory(final, restored(output[SCALING], final) if SCALING in output else None)


def _check_plugins(kept: Any, plugins: list[str], final: "FinalActivation") -> None:
    """The same name from another package is another function."""
    if plugins == final.plugins:
        return
    here = ", ".join(final.plugins) or "p3d-regression or torch itself"
    if [_package(plugin) for plugin in plugins] != [_package(plugin) for plugin in final.plugins]:
        raise CheckpointMismatchError(_not_here(kept, f"Here {final} comes from {here}."))
    logger.warning(
        "p3d-regression: the checkpoint was trained with %s of %s, here it is %s", final, ", ".join(plugins), here
    )


def _package(plugin: str) -> str:
    """Of ``name version`` the name."""
    return plugin.partition(" ")[0]


def _not_here(kept: Any, reason: str) -> str:
    known = kept if isinstance(kept, Mapping) else {}
    output = known.get(_OUTPUT, known.get(KEY, kept))
    plugins = ", ".join(map(str, known["plugins"])) if isinstance(known.get("plugins"), list) else ""
    fix = f"install {plugins}" if plugins else f"install p3d-regression {known.get('version', 'of its time')}"
    return (
        f"model.{KEY}: the checkpoint was trained with {output!r}, which p3d-regression {__version__} "
        f"cannot build here; {fix}, or whatever it was trained with. ({reason})"
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
        f"model.{KEY}: the config says {own}, the checkpoint was trained with {kept}"
        f"{_where(own, kept)}. The weights were fitted through "
        f"the checkpoint's, so that every prediction through another one is wrong. Either delete the line {KEY} from "
        f"the config, and the checkpoint's is used; or, if you want to train these weights further with {own}, name "
        "the checkpoint as trainer.pre_trained (not as resume). From Python: load the weights first, then call "
        "p3d_regression.set_final_activation(model, ...)."
    )


def is_new_scaling(own: Spec, final: "FinalActivation", kept: "TargetScaling | None") -> bool:
    """Whether a model goes on with its own scaling on the weights of another one.

    Args:
        own: what the config says; what it leaves to be measured, the checkpoint brings.
        final: the model's final activation.
        kept: the checkpoint's.

    Raises:
        CheckpointMismatchError: they differ, and the checkpoint was not loaded as ``trainer.pre_trained``; or there is
            nothing to bring.
    """
    from p3d_regression.scaling.target import scaling_of

    if own.is_measured:
        if kept is not None and all(term in (None, n) for term, n in zip(own.terms, kept.numbers, strict=True)):
            return False
        said: object = "standardize"
    else:
        said = scaling_of(own, final)
        if said == kept:
            return False
        if _new_head.get():
            return True
    raise CheckpointMismatchError(
        f"model.{SCALING}: the config says {said or 'none'}, the checkpoint was trained with {kept or 'none'}. Every "
        f"prediction through another one would be in wrong units. Either delete the line {SCALING} from the config, "
        "and the checkpoint's is used; or, if you want to train these weights further with other numbers, name the "
        "checkpoint as trainer.pre_trained (not as resume)."
    )


def _where(own: "FinalActivation", kept: "FinalActivation") -> str:
    """For lists that are too long to compare by eye: the first channel in which they differ."""
    if len(own.entries) == len(kept.entries) == 1:
        return ""
    pairs = [(own.entry(channel), kept.entry(channel)) for channel in range(own.channels)]
    channel = next(i for i, (ours, theirs) in enumerate(pairs) if ours.plain != theirs.plain)
    return f" (they differ first in channel {channel}: {pairs[channel][0]}, {pairs[channel][1]})"
