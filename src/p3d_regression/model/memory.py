"""The checkpoint memory: what a checkpoint says of its model, and what happens when a config disagrees.

It is a small mapping of plain data in the metadata of a ``state_dict``, next to the version numbers that torch keeps
there: no new key, readable by a weights-only load, ignored by pytorch-3dunet and by torch.
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
from p3d_regression.fix import advise, write
from p3d_regression.scaling.spec import KEY as SCALING
from p3d_regression.scaling.spec import Spec
from p3d_regression.text import as_yaml

if TYPE_CHECKING:
    from p3d_regression.activations.final import FinalActivation
    from p3d_regression.scaling.target import TargetScaling

logger = logging.getLogger(__name__)

#: The key of the memory in the metadata of the U-Net.
METADATA_KEY = "p3d_regression"

#: Holds what was trained with, where that is more than an activation. A p3d-regression without target scaling finds no
#: activation then, and refuses the checkpoint; it would predict in standard deviations.
_OUTPUT = "output"

_new_head = ContextVar("new_head", default=False)


@dataclass(frozen=True)
class Memory:
    """What a model was trained with."""

    final: "FinalActivation"
    scaling: "TargetScaling | None" = None


def to_plain(memory: Memory) -> dict[str, Any]:
    """What a checkpoint holds in its metadata, under :data:`METADATA_KEY`."""
    output: dict[str, Any] = {KEY: memory.final.plain}
    if memory.scaling is not None:
        output = {_OUTPUT: {**output, SCALING: memory.scaling.plain}}
    return {**output, "version": __version__, "plugins": memory.final.plugins}


def from_metadata(metadata: Mapping[str, Any], channels: int) -> Memory | None:
    """Read the memory of a checkpoint.

    Args:
        metadata: of the U-Net, in the ``state_dict``.
        channels: output channels of the model.

    Returns:
        None if there is none: the checkpoint was trained without the plugin keys.

    Raises:
        CheckpointMismatchError: it holds something that cannot be built here.
    """
    plain = metadata.get(METADATA_KEY)
    if plain is None:
        return None
    try:
        memory = from_plain(plain, channels)
        plugins = list(map(str, plain.get("plugins", [])))
    except (ConfigError, TypeError, KeyError, AttributeError, ValueError) as error:
        reason = error.found.message if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise _not_here(plain, reason) from error
    _check_plugins(plain, plugins, memory.final)
    return memory


def from_plain(plain: Mapping[str, Any], channels: int) -> Memory:
    """Read what :func:`to_plain` returns.

    Raises:
        ConfigError, KeyError: it holds something else.
    """
    from p3d_regression.activations.registry import resolve
    from p3d_regression.scaling.target import restored

    output = plain.get(_OUTPUT, plain)
    more = output.keys() - {KEY, SCALING, "version", "plugins"} | plain.keys() - {_OUTPUT, KEY, "version", "plugins"}
    if more:
        raise ConfigError("", f"it holds {', '.join(sorted(map(str, more)))}, which this version does not know.")
    final = resolve(output[KEY], channels)
    return Memory(final, restored(output[SCALING], final) if SCALING in output else None)


def _check_plugins(plain: Any, plugins: list[str], final: "FinalActivation") -> None:
    """The same name from another package is another function."""
    if plugins == final.plugins:
        return
    here = ", ".join(final.plugins) or "p3d-regression or torch itself"
    if [_package(plugin) for plugin in plugins] != [_package(plugin) for plugin in final.plugins]:
        raise _not_here(plain, f"Here {final} comes from {here}.")
    logger.warning(
        "p3d-regression: the checkpoint was trained with %s of %s, here it is %s", final, ", ".join(plugins), here
    )


def _package(plugin: str) -> str:
    """Of ``name version`` the name."""
    return plugin.partition(" ")[0]


def _not_here(plain: Any, reason: str) -> CheckpointMismatchError:
    known = plain if isinstance(plain, Mapping) else {}
    output = known.get(_OUTPUT, known.get(KEY, plain))
    plugins = ", ".join(map(str, known["plugins"])) if isinstance(known.get("plugins"), list) else ""
    what = plugins or f"p3d-regression {known.get('version', 'of the training')}"
    message = f"the checkpoint was trained with {output!r}, which p3d-regression {__version__} cannot build here"
    return CheckpointMismatchError(f"model.{KEY}", f"{message} ({reason.rstrip('.')}).", advise(f"install {what}"))


@contextmanager
def new_head_allowed() -> Iterator[None]:
    """While this lasts, a checkpoint is a start for another model, which may have another final activation."""
    token = _new_head.set(True)
    try:
        yield
    finally:
        _new_head.reset(token)


def is_new_head(own: "FinalActivation", trained: "FinalActivation") -> bool:
    """Whether a model goes on with its own final activation on the weights of another one.

    Args:
        own: the config's.
        trained: the checkpoint's.

    Raises:
        CheckpointMismatchError: they differ, and the checkpoint was not loaded as ``trainer.pre_trained``.
    """
    if own.plain == trained.plain:
        return False
    if _new_head.get():
        return True
    raise CheckpointMismatchError(
        f"model.{KEY}",
        f"the config has {own}, but the checkpoint was trained with {trained}{_where(own, trained)}. With "
        "a final activation other than that of the training, every prediction is wrong. Write that of the checkpoint, "
        f"or delete the line {KEY} from the config. To train these weights further with {own}, name the checkpoint as "
        "trainer.pre_trained (not as resume); from Python, load the weights first, then call "
        "p3d_regression.set_final_activation.",
        write(f"model.{KEY}", trained.short),
    )


def is_new_scaling(own: Spec, final: "FinalActivation", trained: "TargetScaling | None") -> bool:
    """Whether a model goes on with its own scaling on the weights of another one.

    Args:
        own: the config's; numbers that have to be measured come from the checkpoint.
        final: the model's final activation.
        trained: the checkpoint's.

    Raises:
        CheckpointMismatchError: they differ, and the checkpoint was not loaded as ``trainer.pre_trained``; or it has
            no numbers.
    """
    from p3d_regression.scaling.target import scaling_of

    if own.is_open:
        if trained is not None and all(own.allows(channel, term) for channel, term in enumerate(trained.terms)):
            return False
        configured: object = as_yaml(own.plain)
    else:
        configured = scaling_of(own, final)
        if configured == trained:
            return False
        if _new_head.get():
            return True
    raise CheckpointMismatchError(
        f"model.{SCALING}",
        f"the config has {configured or 'none'}, but the checkpoint was trained with {trained or 'none'}. With "
        "a scaling other than that of the training, every prediction is in wrong units. Write that of the "
        f"checkpoint, or delete the line {SCALING} from the config. To train these weights further with other numbers, "
        "name the checkpoint as trainer.pre_trained (not as resume).",
        write(f"model.{SCALING}", trained.plain if trained else "none"),
    )


def _where(own: "FinalActivation", trained: "FinalActivation") -> str:
    """For lists that are too long to compare by eye: the first channel in which they differ."""
    if len(own.entries) == len(trained.entries) == 1:
        return ""
    pairs = [(own.entry(channel), trained.entry(channel)) for channel in range(own.channels)]
    channel = next(i for i, (ours, theirs) in enumerate(pairs) if ours.plain != theirs.plain)
    return f" (they differ first in channel {channel}: {pairs[channel][0]}, {pairs[channel][1]})"
