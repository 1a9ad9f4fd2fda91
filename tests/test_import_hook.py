"""The import hook alone, on modules made up here."""

import importlib
import sys
import threading
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from p3d_regression._import_hook import ImportHook, _ReportingSpec, call_after_import


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Write importable modules ``hooked_...``; forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str = "") -> None:
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.startswith("hooked_")]:
        del sys.modules[name]


@pytest.fixture
def calls() -> list[ModuleType]:
    return []


@pytest.fixture
def watch(calls: list[ModuleType]) -> Iterator[object]:
    """Install hooks that record their calls; uninstall them afterwards."""
    hooks: list[ImportHook] = []

    def install(*names: str) -> ImportHook:
        hooks.append(call_after_import(dict.fromkeys(names, calls.append)))
        return hooks[-1]

    yield install
    for hook in hooks:
        hook.uninstall()


def test_calls_after_the_module_has_run(write_module, watch, calls) -> None:
    write_module("hooked_a", "x = 1")
    watch("hooked_a")
    assert calls == []
    module = importlib.import_module("hooked_a")
    assert calls == [module]
    assert module.x == 1


def test_the_module_keeps_its_own_loader(write_module, watch) -> None:
    write_module("hooked_a")
    watch("hooked_a")
    module = importlib.import_module("hooked_a")
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert module.__spec__.loader is module.__loader__


def test_calls_at_once_for_a_loaded_module(write_module, watch, calls) -> None:
    write_module("hooked_a")
    module = importlib.import_module("hooked_a")
    watch("hooked_a")
    assert calls == [module]


def test_calls_for_a_module_that_installs_the_hook_while_it_is_imported(write_module, monkeypatch) -> None:
    """As when upstream's model module is the first to import torch."""
    seen: list[int] = []
    install = ModuleType("hooked_install")
    # fails where the call comes before the last line of the module has run
    install.run = lambda: call_after_import({"hooked_half": lambda module: seen.append(module.x)})
    monkeypatch.setitem(sys.modules, "hooked_install", install)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    write_module("hooked_half", "import hooked_install\nhook = hooked_install.run()\nx = 1")
    module = importlib.import_module("hooked_half")
    module.hook.uninstall()
    assert seen == [1]
    assert type(module.__spec__) is importlib.machinery.ModuleSpec
    assert not vars(module.__spec__).keys() & {"_hook"}


@pytest.mark.parametrize("stub", [None, 3, unittest.mock.MagicMock()])
def test_a_stand_in_for_a_module_is_left_alone(watch, calls, monkeypatch, stub: object) -> None:
    """A user's tests may put anything into sys.modules."""
    monkeypatch.setitem(sys.modules, "hooked_stub", stub)
    watch("hooked_stub")
    assert calls == []


def test_a_failing_call_leaves_no_hook_behind(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hooked_module", ModuleType("hooked_module"))

    def fail(module: ModuleType) -> None:
        raise OSError("no")

    before = list(sys.meta_path)
    with pytest.raises(OSError, match="no"):
        call_after_import({"hooked_module": fail})
    assert sys.meta_path == before


def test_installed_again_it_is_the_first_to_be_asked(watch, calls, write_module) -> None:
    write_module("hooked_a")
    hook = watch("hooked_a")
    sys.meta_path.remove(hook)
    importlib.import_module("hooked_a")
    assert calls == []
    hook.install()
    hook.install()
    assert calls[0] is sys.modules["hooked_a"]
    assert sys.meta_path.index(hook) == 0
    assert sys.meta_path.count(hook) == 1


def test_calls_when_another_thread_has_just_finished_the_import(write_module, watch, calls) -> None:
    """The spec said "initializing" when it was looked at, and no longer does when it is taken over."""
    write_module("hooked_a")
    module = importlib.import_module("hooked_a")
    hook = watch("hooked_a")
    calls.clear()
    _ReportingSpec.take_over(module.__spec__, hook)
    assert calls == [module]
    assert type(module.__spec__) is importlib.machinery.ModuleSpec


def test_no_call_for_a_half_built_module_that_fails(write_module, watch, calls) -> None:
    sys.modules["hooked_install"] = install = ModuleType("hooked_install")
    install.run = lambda: watch("hooked_half")
    write_module("hooked_half", "import hooked_install\nhooked_install.run()\nraise OSError('no')")
    with pytest.raises(OSError, match="no"):
        importlib.import_module("hooked_half")
    assert calls == []


def test_no_call_for_a_module_that_fails(write_module, watch, calls) -> None:
    write_module("hooked_a", "raise OSError('no')")
    watch("hooked_a")
    with pytest.raises(OSError, match="no"):
        importlib.import_module("hooked_a")
    assert calls == []


def test_calls_again_after_a_reload(write_module, watch, calls) -> None:
    write_module("hooked_a")
    watch("hooked_a")
    module = importlib.import_module("hooked_a")
    importlib.reload(module)
    assert calls == [module, module]


def test_uninstalled_it_is_silent_and_gone(write_module, watch, calls) -> None:
    write_module("hooked_a")
    hook = watch("hooked_a")
    hook.uninstall()
    hook.uninstall()
    importlib.import_module("hooked_a")
    assert calls == []
    assert hook not in sys.meta_path


def test_other_modules_are_not_touched(write_module, watch, calls) -> None:
    write_module("hooked_b")
    watch("hooked_a")
    importlib.import_module("hooked_b")
    assert calls == []


def test_a_missing_module_is_missing(watch) -> None:
    watch("hooked_nowhere")
    with pytest.raises(ModuleNotFoundError, match="hooked_nowhere"):
        importlib.import_module("hooked_nowhere")


def test_two_hooks_on_one_module_both_hear(write_module, watch, calls) -> None:
    write_module("hooked_a")
    watch("hooked_a")
    watch("hooked_a")
    module = importlib.import_module("hooked_a")
    assert calls == [module, module]


def test_threads_see_the_module_only_after_the_call(write_module) -> None:
    write_module("hooked_slow", "import time\ntime.sleep(0.2)\nstate = 'plain'")

    def patch(module: ModuleType) -> None:
        module.state = "patched"

    hook = call_after_import({"hooked_slow": patch})
    start = threading.Barrier(8)
    seen: list[str] = []

    def load() -> None:
        start.wait()
        seen.append(importlib.import_module("hooked_slow").state)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hook.uninstall()
    assert seen == ["patched"] * 8
