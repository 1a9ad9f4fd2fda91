"""The plugins of this process: found through entry points, loaded once, when a config first uses a plugin key."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, wraps
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Any, TypeVar

import pluggy

from p3d_regression import hookspecs

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Environment variable with the names of plugins to exclude, or of their distributions: ``a,b``.
BLOCK = "P3D_REGRESSION_BLOCK_PLUGINS"


@dataclass
class Plugin:
    """One plugin, loaded or not.

    Attributes:
        name: of its entry point.
        distribution: the installed package it comes from, with version; None for a part of this project.
        state: ``loaded``, ``failed`` or ``blocked``.
        detail: what it has added, why it failed, or what blocks it.
    """

    name: str
    distribution: str | None
    state: str = "loaded"
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution})" if self.distribution else self.name

    def fail(self, error: BaseException) -> None:
        """Exclude the plugin, with a warning."""
        self.state, self.detail = "failed", f"{type(error).__name__}: {error}"
        # logged, not warned of: under `python -W error` a warning would stop a training that does not need it
        logger.warning(
            "p3d-regression: the plugin %s is not loaded: %s. Update or uninstall it, or set %s=%s to exclude it.",
            self,
            self.detail,
            BLOCK,
            self.name,
        )


class Plugins:
    """pluggy's manager, with a record of what each plugin did."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.found: list[Plugin] = []
        self._modules: list[tuple[Plugin, object]] = []

    def add_installed(self) -> None:
        """Load every installed plugin that is not blocked. One that fails costs a warning and nothing else."""
        blocked = {_normal(name) for name in os.environ.get(BLOCK, "").split(",")}
        for entry in sorted(entry_points(group=hookspecs.PROJECT), key=lambda e: e.name):
            plugin = Plugin(entry.name, _distribution(entry))
            if {_normal(entry.name), _normal(entry.dist.name if entry.dist else "")} & (blocked - {""}):
                plugin.state, plugin.detail = "blocked", f"{BLOCK}={os.environ[BLOCK]}"
                self.found.append(plugin)
                continue
            try:
                self._register(plugin, entry.load())
            except (Exception, SystemExit) as error:
                self.found.append(plugin)
                plugin.fail(error)

    def not_loaded(self) -> list[Plugin]:
        """The plugins that failed, or are blocked."""
        return [plugin for plugin in self.found if plugin.state != "loaded"]

    def report(self) -> list[dict[str, str]]:
        """``name``, ``distribution``, ``state`` and ``detail`` of each plugin."""
        return [asdict(plugin) for plugin in self.found]

    def _register(self, plugin: Plugin, module: object) -> None:
        self.manager.register(module)
        callers = self.manager.get_hookcallers(module) or []
        unknown = [caller.name for caller in callers if not caller.has_spec() and not _is_optional(caller, module)]
        if unknown or not callers:
            self.manager.unregister(module)
            what = f"unknown hooks: {', '.join(unknown)}" if unknown else "none of this project's hooks"
            raise TypeError(f"it implements {what}; the hooks are {', '.join(_hook_names())}")
        self.found.append(plugin)
        self._modules.append((plugin, module))

    def contributions(self, hook: str) -> Iterator[tuple[Plugin, list[Any]]]:
        """What each plugin adds. Each is called alone, so that an error in one does not affect the others."""
        for plugin, module in self._modules:
            if plugin.state != "loaded":
                continue
            others = [other for _, other in self._modules if other is not module]
            try:
                results = self.manager.subset_hook_caller(hook, remove_plugins=others)()
                added = [item for result in results for item in result]
            except (Exception, SystemExit) as error:
                plugin.fail(error)
            else:
                yield plugin, added


def _is_optional(caller: pluggy.HookCaller, module: object) -> bool:
    """Whether a plugin has marked a hook, which a newer version may have, as optional."""
    return all(
        implementation.optionalhook for implementation in caller.get_hookimpls() if implementation.plugin is module
    )


def _hook_names() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("p3d_")]


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "of an unknown package"


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def singleton(make: Callable[[], T]) -> Callable[[], T]:
    """Call a function without arguments once in a process, and return the same result ever after."""
    lock, made = RLock(), cache(make)

    @wraps(make)
    def get() -> T:
        # a cache alone would let two threads make two
        with lock:
            return made()

    get.cache_clear = made.cache_clear  # type: ignore[attr-defined]
    return get


@singleton
def installed() -> Plugins:
    """The plugins of this process, which are loaded at the first call."""
    plugins = Plugins()
    plugins.add_installed()
    return plugins
