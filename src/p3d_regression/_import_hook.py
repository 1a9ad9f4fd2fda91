"""Call a function right after a module has been imported, however and whenever that happens.

Knows nothing of what the modules are. Standard library only, because it runs inside ``import torch``.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from threading import RLock
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

Callback = Callable[[ModuleType], None]


def call_after_import(callbacks: Mapping[str, Callback], witness: str = "") -> "ImportHook":
    """Call ``callbacks[name](module)`` after each execution of the module ``name``.

    A module that is loaded already gets its call at once; one that is being imported at this moment gets it
    when its code has run to the end, before the ``import`` statement that asked for it returns; one that is
    imported or reloaded later, then. A callback must not raise: its exception would look like the module's.

    Another import hook that is installed later stands in front of this one, and may hide modules from it. That is
    noticed at the next import that the other hook passes on, or that names the witness; modules that were hidden
    get their calls then.

    Args:
        callbacks: full module name -> function of the module.
        witness: a module that each watched one imports on its first lines, loaded before them. With it, no
            hidden module gets past: it is still running when it is noticed.

    Returns:
        The hook, to be taken out again with its ``uninstall()``.
    """
    hook = ImportHook(callbacks, witness)
    hook.install()
    return hook


class ImportHook:
    """A finder on ``sys.meta_path`` that lends each watched module a loader which reports back."""

    def __init__(self, callbacks: Mapping[str, Callback], witness: str = "") -> None:
        self._callbacks = dict(callbacks)
        self._called: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()
        self._witness = witness
        self._order = RLock()

    def install(self) -> None:
        """Start watching, or take the first place again where another finder has taken it or ours is gone."""
        self._go_first()
        self._called.clear()
        try:
            self._call_for_loaded()
        except BaseException:
            self._leave()
            raise

    def uninstall(self) -> None:
        """Stop watching. Calls that were made are not undone; uninstalling twice is fine."""
        self._callbacks.clear()
        _WitnessSpec.give_back(sys.modules.get(self._witness), self)
        self._leave()

    def look_around(self) -> None:
        """Take the first place again if another finder has it, and call for what that has hidden."""
        # nothing but the comparison is done at each import
        if sys.meta_path and sys.meta_path[0] is not self and self._callbacks:
            self._go_first()
            self._call_for_loaded()

    def _go_first(self) -> None:
        with self._order:
            # in before out: a thread that is asking the finders in turn at this moment skips none
            sys.meta_path.insert(0, self)
            self._leave(from_place=1)
        _WitnessSpec.take_over(sys.modules.get(self._witness), self)

    def _leave(self, from_place: int = 0) -> None:
        places = [i for i, finder in enumerate(sys.meta_path) if finder is self and i >= from_place]
        for place in reversed(places):
            del sys.meta_path[place]

    def _call_for_loaded(self) -> None:
        for name in list(self._callbacks):
            module = sys.modules.get(name)
            # a test may have put a stand-in there
            if isinstance(module, ModuleType) and self._called.get(name) is not module:
                self._call_when_loaded(name, module)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = self._find_elsewhere(fullname, path, target) if fullname in self._callbacks else None
        # changes which finder is the first, not which one is asked after this one
        self.look_around()
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _ReportingLoader(spec.loader, self, fullname)  # type: ignore[assignment]
        return spec

    def _find_elsewhere(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        # The finders in front of this one were asked before it and did not know the module.
        finders = list(sys.meta_path)
        if self in finders:
            finders = finders[finders.index(self) + 1 :]
        for finder in finders:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(fullname, path, target) if find_spec else None
            if spec is not None:
                return spec
        return None

    def call(self, name: str, module: ModuleType) -> None:
        callback = self._callbacks.get(name)
        if callback is not None:
            self._called[name] = module
            callback(module)

    def _call_when_loaded(self, name: str, module: ModuleType) -> None:
        spec = getattr(module, "__spec__", None)
        if isinstance(spec, ModuleSpec) and getattr(spec, "_initializing", False):
            _ReportingSpec.take_over(spec, self)
        else:
            self.call(name, module)


class _ReportingLoader:
    """Stands in for a module's loader during one execution, then tells the hook."""

    def __init__(self, loader: Any, hook: ImportHook, name: str) -> None:
        self._loader = loader
        self._hook = hook
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # inspect, pickle, pkgutil and importlib.resources look at these: they get the module's own loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._hook.call(self._name, module)


class _ReportingSpec(ModuleSpec):
    """The spec of a module whose code is running now; tells the hook when it has run.

    The import system marks the end by setting ``spec._initializing`` to False, while it still holds the
    module's import lock: no thread, and no ``from module import name``, can get in between. There is no
    loader to stand in for any more, because its ``exec_module`` is already on the stack.
    """

    @classmethod
    def take_over(cls, spec: ModuleSpec, hook: ImportHook) -> None:
        spec.__dict__["_hook"] = hook
        spec.__class__ = cls
        if not spec.__dict__["_initializing"]:
            # another thread has finished the import in between
            cls._report(spec)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_initializing" and not value:
            _ReportingSpec._report(self)
        # not super(): the class may have just changed
        object.__setattr__(self, name, value)

    @staticmethod
    def _report(spec: ModuleSpec) -> None:
        # whoever gets the hook out of the spec makes the call, nobody else
        hook = spec.__dict__.pop("_hook", None)
        spec.__class__ = ModuleSpec
        module = sys.modules.get(spec.name)
        # a module whose code raised has left sys.modules by now
        if hook is not None and module is not None and module.__spec__ is spec:
            hook.call(spec.name, module)


class _WitnessSpec(ModuleSpec):
    """The spec of a loaded module that watched modules import; lets the hook look around at each such import.

    For a module that is loaded, the import system asks no finder. It asks ``spec._initializing``, because another
    thread may be running the module's code.
    """

    @classmethod
    def take_over(cls, module: object, hook: ImportHook) -> None:
        spec = _spec_of(module)
        if type(spec) in (ModuleSpec, cls):
            spec.__dict__["_hook"] = hook
            spec.__class__ = cls

    @classmethod
    def give_back(cls, module: object, hook: ImportHook) -> None:
        spec = _spec_of(module)
        if spec is not None and spec.__dict__.get("_hook") is hook:
            del spec.__dict__["_hook"]
            spec.__class__ = ModuleSpec

    @property
    def _initializing(self) -> bool:
        hook = self.__dict__.get("_hook")
        if hook is not None:
            hook.look_around()
        return bool(self.__dict__.get("_initializing", False))

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        self.__dict__["_initializing"] = value


def _spec_of(module: object) -> Any:
    # not getattr(): a module that is imported lazily would be imported for that
    return object.__getattribute__(module, "__dict__").get("__spec__") if isinstance(module, ModuleType) else None
