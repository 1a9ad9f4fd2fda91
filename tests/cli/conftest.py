"""Upstream alone, in one process per test file."""

from collections.abc import Iterator

import pytest

from support.environments import Environment
from support.preforked import Preforked
from support.traps import Traps


@pytest.fixture(scope="module")
def traps(bare: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traps]:
    """Upstream without the plugin, and configs that it does not do well with."""
    directory = tmp_path_factory.mktemp("traps")
    with Preforked(bare, directory) as server:
        yield Traps(server, directory)


@pytest.fixture(scope="module")
def runs(plugin: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traps]:
    """Upstream with the plugin, and the same configs."""
    directory = tmp_path_factory.mktemp("runs")
    with Preforked(plugin, directory) as server:
        yield Traps(server, directory)
