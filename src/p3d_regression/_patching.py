"""Replace a function of a foreign module wherever it has been imported to, or a method, and put it back."""

import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from types import ModuleType
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

AnyFunction = Callable[..., Any]
T = TypeVar("T")

#: Attribute of a replacement that holds its patch.
_MARK = "__p3d_regression_patch__"


@dataclass
class Patch:
    """What was done to one foreign function, and how to take it back.

    Attributes:
        target: full dotted name of the foreign function.
        state: ``applied``, ``unsupported`` (the target is not as expected, nothing was replaced) or ``undone``.
        detail: one line for a person.
    """

    target: str
    state: str
    detail: str
    undo_actions: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        logger.debug("%s: %s (%s)", self.target, self.state, self.detail)

    @property
    def is_applied(self) -> bool:
        return self.state == "applied"

    def undo(self) -> None:
        """Put the foreign function back; a wrapper that someone still holds turns into a plain passage."""
        for action in reversed(self.undo_actions):
            action()
        self.undo_actions.clear()
        if self.is_applied:
            self.state, self.detail = "undone", "the original function of pytorch-3dunet is restored"
            logger.debug("%s: %s", self.target, self.state)

    def report(self) -> dict[str, str]:
        return {"target": self.target, "state": self.state, "detail": self.detail}


def patch_of(function: object) -> Patch | None:
    """Return the patch whose replacement ``function`` is, while it is applied."""
    patch = getattr(function, _MARK, None)
    return patch if isinstance(patch, Patch) and patch.is_applied else None


def original_of(function: Any) -> Any:
    """The function of pytorch-3dunet, where ``function`` is this project's replacement of it."""
    return function.__wrapped__ if patch_of(function) else function


def mark(replacement: T, patch: Patch) -> T:
    """Let :func:`patch_of` know a replacement."""
    setattr(replacement, _MARK, patch)
    return replacement


def replace_function(
    module: ModuleType,
    name: str,
    wrap: Callable[[AnyFunction, Patch], AnyFunction],
    *,
    parameters: list[str] | None,
) -> Patch:
    """Replace ``module.name`` by ``wrap(original, patch)``, also where it was imported by name.

    Args:
        module: the foreign module, executed to the end.
        name: its function to replace.
        wrap: returns the replacement; it must pass through to the original once ``patch.is_applied`` is False.
        parameters: names of the parameters the original must have; None accepts any.

    Returns:
        The patch; the one that is there already, if any. Its state is ``unsupported`` where the function is
        missing or has other parameters, and nothing was replaced then.
    """
    target = f"{module.__name__}.{name}"
    original = vars(module).get(name)
    if existing := patch_of(original):
        return existing
    if original is None:
        return Patch(target, "unsupported", "pytorch-3dunet has no such function")
    if not inspect.isfunction(original):
        kind = type(original).__name__
        return Patch(target, "unsupported", f"pytorch-3dunet has an object of type {kind} there, not a function")
    found = list(inspect.signature(original).parameters)
    if parameters is not None and found != parameters:
        signatures = f"({', '.join(found)}), expected ({', '.join(parameters)})"
        return Patch(target, "unsupported", f"pytorch-3dunet takes {signatures}")
    patch = Patch(target, "applied", "replaced")
    wrapper = mark(wrap(original, patch), patch)
    _rebind(module, name, original, wrapper)
    patch.undo_actions.append(lambda: _rebind(module, name, wrapper, original))
    return patch


def replace_method(
    classes: Sequence[type], name: str, wrap: Callable[[AnyFunction, Patch], AnyFunction], *, target: str, detail: str
) -> Patch:
    """Replace a method of each class by ``wrap(original, patch)``; a class that only inherits it gets its own.

    Args:
        classes: foreign classes that are patched together, at least one.
        name: of the method.
        wrap: as in :func:`replace_function`.
        target, detail: as in :class:`Patch`.

    Returns:
        The patch; the one that is there already, if any.
    """
    if existing := patch_of(getattr(classes[0], name)):
        return existing
    patch = Patch(target, "applied", detail)
    for cls in classes:
        own = vars(cls).get(name)
        setattr(cls, name, mark(wrap(getattr(cls, name), patch), patch))
        patch.undo_actions.append(partial(_restore_method, cls, name, vars(cls)[name], own))
    return patch


def wrap_method(target: object, name: str, replacement: Callable[..., Any]) -> None:
    """Let a method of one object, and of no other, be wrapped.

    Args:
        target: the object.
        name: of the method.
        replacement: called with the original method and its arguments.
    """
    original = getattr(target, name)

    @wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    setattr(target, name, method)


def _restore_method(cls: type, name: str, ours: AnyFunction, own: AnyFunction | None) -> None:
    # somebody else may have wrapped ours since; a patch that is undone lets everything pass anyway
    if vars(cls).get(name) is not ours:
        return
    if own is None:
        delattr(cls, name)
    else:
        setattr(cls, name, own)


def _rebind(home: ModuleType, name: str, old: object, new: object) -> None:
    """Let ``name`` mean ``new`` in every module where it means ``old``: its home and its importers."""
    for module in [home, *sys.modules.values()]:
        # vars() on a lazily imported module would import it; the module type's own slot does not.
        if isinstance(module, ModuleType):
            names = object.__getattribute__(module, "__dict__")
            if names.get(name) is old:
                names[name] = new
