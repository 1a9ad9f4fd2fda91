"""Shared, expensive things: environments and trained models, each made once per session."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.environments import FAST, ROOT, Environment, bare_environment, build_wheel
from support.lab import Lab
from support.preforked import Preforked

if TYPE_CHECKING:
    from p3d_regression.demo.data import Brain

# before torch is imported, and inherited by the workers of pytest-xdist
os.environ.update(FAST)

#: What takes longest comes first: at the end it would be on one worker alone.
LONGEST = [
    "cli/test_demo.py",
    "cli/test_doctor_and_run.py",
    "model/test_unet.py",
    "cli/test_old_upstream.py",
    "cli/test_check.py",
    "training/test_monitor.py",
    "cli/test_traps_training.py",
    "test_activation_routes.py",
    "cli/test_target_scaling.py",
    "cli/test_train_and_predict.py",
    "cli/test_checkpoints.py",
    "test_docs.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session")
def plugin() -> Environment:
    """The environment the tests run in: the plugin is installed there."""
    return Environment.current()


@pytest.fixture(scope="session")
def brain() -> "Brain":
    """Whose volumes nobody changes."""
    from p3d_regression.demo.data import load_brain

    return load_brain()


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
