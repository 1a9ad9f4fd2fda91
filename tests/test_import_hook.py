"""The import hook alone, on modules made up here."""

import importlib
import sys
import threading
import unittest.mock
from collections.abc import Iterator
from importlib.machinery import PathFinder
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


class Foreign:
    """Another import hook, which takes some modules before ours is asked."""

    def __init__(self, *hidden: str) -> None:
        self.hidden = hidden

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        return PathFinder.find_spec(name, path, target) if name in self.hidden else None


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> object:
    """Install one in front, where no hook but those of the test is."""
    others = [finder for finder in sys.meta_path if not isinstance(finder, ImportHook)]
    monkeypatch.setattr(sys, "meta_path", others)
    return lambda *names: sys.meta_path.insert(0, Foreign(*names))


class TestHiddenByAnotherImportHook:
    def test_a_module_is_noticed_while_it_imports_the_witness(self, write_module, calls, hide) -> None:
        write_module("hooked_witness")
        write_module("hooked_a", "import hooked_witness\nx = 1")
        witness = importlib.import_module("hooked_witness")
        hook = call_after_import({"hooked_a": lambda module: calls.append(module.x)}, witness="hooked_witness")
        hide("hooked_a")
        module = importlib.import_module("hooked_a")
        assert calls == [1]
        assert sys.meta_path[0] is hook
        assert type(module.__spec__) is importlib.machinery.ModuleSpec
        hook.uninstall()
        assert type(witness.__spec__) is importlib.machinery.ModuleSpec
        assert not vars(witness.__spec__).keys() & {"_hook"}
        assert witness.__spec__._initializing is False
        assert sys.meta_path.count(hook) == 0

    def test_it_is_noticed_at_the_next_import_that_is_passed_on(self, write_module, watch, calls, hide) -> None:
        for name in ("hooked_a", "hooked_b"):
            write_module(name)
        hook = watch("hooked_a")
        hide("hooked_a")
        module = importlib.import_module("hooked_a")
        assert calls == []
        importlib.import_module("hooked_b")
        assert calls == [module]
        assert sys.meta_path[0] is hook
        assert sys.meta_path.count(hook) == 1

    def test_a_module_that_was_loaded_anew_gets_its_call(self, write_module, watch, calls, hide) -> None:
        for name in ("hooked_a", "hooked_b"):
            write_module(name)
        watch("hooked_a")
        old = importlib.import_module("hooked_a")
        del sys.modules["hooked_a"]
        hide("hooked_a")
        new = importlib.import_module("hooked_a")
        importlib.import_module("hooked_b")
        assert calls == [old, new]

    def test_a_module_that_has_had_its_call_gets_no_second_one(self, write_module, watch, calls, hide) -> None:
        for name in ("hooked_a", "hooked_b"):
            write_module(name)
        watch("hooked_a")
        module = importlib.import_module("hooked_a")
        hide()
        importlib.import_module("hooked_b")
        assert calls == [module]

    def test_both_hooks_work_on_the_modules_that_come_later(self, write_module, watch, calls, hide) -> None:
        """The first place is for seeing the module, not for taking it away from the other hook."""
        for name in ("hooked_a", "hooked_b"):
            write_module(name)
        watch("hooked_a")
        hide("hooked_a")
        asked = []
        sys.meta_path[0].find_spec = lambda name, path, target=None: asked.append(name)
        importlib.import_module("hooked_b")
        importlib.import_module("hooked_a")
        assert asked == ["hooked_b", "hooked_a"]
        assert calls == [sys.modules["hooked_a"]]

    def test_threads_find_one_hook_on_the_meta_path(self, write_module, watch, calls, hide) -> None:
        hook = watch("hooked_a")
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(50):
                hide()
                threads = [threading.Thread(target=hook.look_around) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert sys.meta_path.count(hook) == 1
        finally:
            sys.setswitchinterval(interval)

    def test_nothing_is_done_at_an_import_of_the_witness_while_the_hook_is_first(
        self, write_module, calls, hide, monkeypatch
    ) -> None:
        """Imports of torch stand in functions that are called often."""
        write_module("hooked_witness")
        importlib.import_module("hooked_witness")
        hide()
        hook = call_after_import({"hooked_a": calls.append}, witness="hooked_witness")
        done: list[str] = []
        monkeypatch.setattr(hook, "_go_first", lambda: done.append("moved"))
        monkeypatch.setattr(hook, "_call_for_loaded", lambda: done.append("looked"))
        exec("import hooked_witness")
        assert done == []
        hide()
        exec("import hooked_witness")
        assert done == ["moved", "looked"]
        hook.uninstall()

    def test_a_stand_in_for_the_witness_is_left_alone(self, monkeypatch, calls) -> None:
        monkeypatch.setitem(sys.modules, "hooked_witness", stub := unittest.mock.MagicMock())
        hook = call_after_import({"hooked_a": calls.append}, witness="hooked_witness")
        hook.uninstall()
        assert stub.mock_calls == []
