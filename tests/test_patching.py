"""Replacing a function of a foreign module, on modules made up here."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from p3d_regression._patching import AnyFunction, Patch, replace_function


@pytest.fixture
def foreign() -> Iterator[tuple[ModuleType, ModuleType]]:
    """A module with a function, and one that has imported it by name."""
    home, importer = ModuleType("foreign_home"), ModuleType("foreign_importer")
    exec("def build(config): return config", vars(home))
    importer.build = home.build
    for module in (home, importer):
        sys.modules[module.__name__] = module
    yield home, importer
    for module in (home, importer):
        del sys.modules[module.__name__]


def loud(original: AnyFunction, patch: Patch) -> AnyFunction:
    return lambda config: ("loud", original(config)) if patch.is_applied else original(config)


def test_replaces_at_home_and_at_importers(foreign: tuple[ModuleType, ModuleType]) -> None:
    home, importer = foreign
    patch = replace_function(home, "build", loud, parameters=["config"])
    assert patch.report() == {"target": "foreign_home.build", "state": "applied", "detail": "replaced"}
    assert home.build(1) == importer.build(1) == ("loud", 1)


def test_undo_puts_the_original_back_and_silences_the_wrapper(foreign: tuple[ModuleType, ModuleType]) -> None:
    home, importer = foreign
    original = home.build
    patch = replace_function(home, "build", loud, parameters=["config"])
    held = home.build
    patch.undo()
    patch.undo()
    assert home.build is importer.build is original
    assert held(1) == 1
    assert patch.state == "undone"


def test_a_function_of_the_same_name_elsewhere_is_not_touched(foreign: tuple[ModuleType, ModuleType]) -> None:
    home, importer = foreign
    importer.build = other = lambda config: "other"
    replace_function(home, "build", loud, parameters=["config"])
    assert importer.build is other


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("", "pytorch-3dunet has no such function"),
        ("build = 3", "pytorch-3dunet has an object of type int there, not a function"),
        ("def build(config, device): pass", "pytorch-3dunet takes (config, device), expected (config)"),
    ],
)
def test_an_unexpected_target_is_left_alone(source: str, detail: str) -> None:
    module = ModuleType("foreign_changed")
    exec(source, vars(module))
    before = vars(module).get("build")
    patch = replace_function(module, "build", loud, parameters=["config"])
    assert (patch.state, patch.detail) == ("unsupported", detail)
    assert vars(module).get("build") is before
    patch.undo()
    assert patch.state == "unsupported"


def test_says_at_debug_level_what_it_did(
    foreign: tuple[ModuleType, ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "p3d_regression")
    replace_function(foreign[0], "build", loud, parameters=["config"]).undo()
    assert caplog.messages == ["foreign_home.build: applied (replaced)", "foreign_home.build: undone"]


def test_a_lazily_imported_module_stays_lazy(foreign: tuple[ModuleType, ModuleType]) -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> object:
            raise AssertionError("the module was asked for something")

    sys.modules["foreign_lazy"] = Lazy("foreign_lazy")
    try:
        replace_function(foreign[0], "build", loud, parameters=["config"])
    finally:
        del sys.modules["foreign_lazy"]
