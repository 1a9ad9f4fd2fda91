"""Configs that upstream does not do well with, for upstream alone and with the plugin."""

import pytest

from support.preforked import Preforked
from support.traps import Traps


@pytest.fixture(scope="module")
def traps(forked_bare: Preforked, tmp_path_factory: pytest.TempPathFactory) -> Traps:
    """Upstream without the plugin."""
    return Traps(forked_bare, tmp_path_factory.mktemp("traps"))


@pytest.fixture(scope="module")
def runs(forked: Preforked, tmp_path_factory: pytest.TempPathFactory) -> Traps:
    """Upstream with the plugin, and the same configs."""
    return Traps(forked, tmp_path_factory.mktemp("runs"))
