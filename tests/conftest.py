"""Shared, expensive things: environments and trained models, each made once per session."""

from pathlib import Path

import pytest

from support.environments import ROOT, Environment, bare_environment, build_wheel
from support.lab import Lab


@pytest.fixture(scope="session")
def plugin() -> Environment:
    """The environment the tests run in: the plugin is installed there."""
    return Environment.current()


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The same environment without the plugin, as if it had never been installed."""
    return bare_environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a wheel, built from this checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, plugin: Environment, bare: Environment) -> Lab:
    """Trains and predicts with upstream's console scripts on tiny volumes; remembers what it has done."""
    return Lab(tmp_path_factory.mktemp("lab"), {"plugin": plugin, "bare": bare})
