"""Shared, expensive things: environments and trained models, each made once per session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.environments import FAST, ROOT, Environment, bare_environment, build_wheel
from support.lab import Lab
from support.preforked import Preforked

# before torch is imported, and inherited by the workers of pytest-xdist
os.environ.update(FAST)


@pytest.fixture(scope="session")
def plugin() -> Environment:
    """The environment the tests run in: the plugin is installed there."""
    return Environment.current()


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The same environment without the plugin, as if it had never been installed."""
    return bare_environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def forked(plugin: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preforked]:
    """The environment with the plugin, whose programs are forks."""
    with Preforked(plugin, tmp_path_factory.mktemp("printed")) as programs:
        yield programs


@pytest.fixture(scope="session")
def forked_bare(bare: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preforked]:
    """The environment without the plugin, whose programs are forks."""
    with Preforked(bare, tmp_path_factory.mktemp("printed")) as programs:
        yield programs


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a wheel, built from this checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, forked: Preforked, forked_bare: Preforked) -> Lab:
    """Trains and predicts with upstream's console scripts on tiny volumes; remembers what it has done."""
    return Lab(tmp_path_factory.mktemp("lab"), {"plugin": forked, "bare": forked_bare})
