"""The check of a loaded config, on stand-ins for upstream's config module, old and new."""

from types import ModuleType
from typing import Any

import pytest
import torch  # noqa: F401  # activates the plugin

from p3d_regression import ConfigError, UnsupportedUpstreamError
from p3d_regression._patching import Patch
from p3d_regression.patches import activation
from p3d_regression.patches.config import patch

MISPLACED = {"final_activation": "none", "model": {"name": "UNet3D"}}
GOOD = {"model": {"name": "UNet3D", "final_activation": "none"}}


def patched(loaded: object) -> tuple[ModuleType, Patch]:
    module: Any = ModuleType("upstream_config")
    exec("def load_config(): return loaded", vars(module))
    module.loaded = loaded
    (done,) = patch(module)
    assert done.is_applied
    return module, done


@pytest.mark.parametrize(
    "as_loaded",
    [pytest.param(lambda c: c, id="to 1.6.1"), pytest.param(lambda c: (c, "train.yml"), id="from 1.7.0")],
)
def test_checks_what_every_version_returns(as_loaded: Any) -> None:
    with pytest.raises(ConfigError, match="move it into the section model"):
        patched(as_loaded(MISPLACED))[0].load_config()
    assert patched(as_loaded(GOOD))[0].load_config() == as_loaded(GOOD)


@pytest.mark.parametrize("loaded", [None, [], "text", {}, {"model": None}, {3: 4}])
def test_what_is_no_config_is_left_to_upstream(loaded: object) -> None:
    assert patched(loaded)[0].load_config() == loaded


def test_a_builder_that_is_not_ready_stops_the_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "builder_is_ready", lambda: False)
    with pytest.raises(UnsupportedUpstreamError, match=r"^model\.final_activation: 'none' would be ignored"):
        patched(GOOD)[0].load_config()
    assert patched({"model": {"name": "UNet3D"}})[0].load_config() == {"model": {"name": "UNet3D"}}


def test_undone_it_checks_nothing() -> None:
    module, done = patched(MISPLACED)
    held = module.load_config
    done.undo()
    assert held() == MISPLACED
    assert module.load_config() == MISPLACED


def test_a_builder_that_was_missed_is_not_active_until_it_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    activation.builder_is_ready()
    monkeypatch.setattr(activation, "_patches", [])
    assert activation.builder_state() == "missed"
    assert not activation.is_active()
    activation.activate()
    assert activation.is_active()
    assert activation.builder_state() == "applied"
