"""Any config at all: no rule breaks."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import apply
from p3d_regression.checks.view import View
from support.lab import prediction_config, training_config

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["none", "softmax", "MSELoss", "PSNR", "Adam", "ToTensor", "false", "1e-3", "int64"]),
    st.dates(),
)
keys = st.one_of(
    st.sampled_from(["name", "final_activation", "is_segmentation", "weight", "ignore_index", "lr", "dtype", "mode"]),
    st.text(max_size=6),
    st.integers(0, 3),
    st.none(),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)

CONFIGS = {
    "train": training_config(Path("data"), {"name": "UNet3D"})
    | {"lr_scheduler": {"name": "ReduceLROnPlateau", "mode": "min"}},
    "predict": prediction_config(Path("data"), {"name": "UNet3D"}),
}


def _places(config: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = list(config.items()) if isinstance(config, dict) else list(enumerate(config))
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += _places(value, (*path, key))
    return found


def _replaced(config: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copied = dict(config) if isinstance(config, dict) else list(config)
    copied[path[0]] = _replaced(config[path[0]], path[1:], value)
    return copied


@given(st.sampled_from(sorted(CONFIGS)), st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_something_else_at_any_place(mode: Any, data: st.DataObject) -> None:
    config = CONFIGS[mode]
    for _ in range(data.draw(st.integers(1, 3))):
        config = _replaced(config, data.draw(st.sampled_from(_places(config))), data.draw(values))
    findings, broken = apply(rules(), View(config, mode, opens_files=False), "config")
    assert broken == {}
    for finding in findings:
        assert str(finding)


@given(st.sampled_from(sorted(CONFIGS)), st.data())
@settings(max_examples=100, deadline=None)
def test_another_key_at_any_place(mode: Any, data: st.DataObject) -> None:
    config = CONFIGS[mode]
    mappings = [path for path in _places(config) if isinstance(_at(config, path), dict)]
    path = data.draw(st.sampled_from(mappings))
    extended = {**_at(config, path), data.draw(keys): data.draw(values)}
    _, broken = apply(rules(), View(_replaced(config, path, extended), mode, opens_files=False), "config")
    assert broken == {}


def _at(config: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        config = config[key]
    return config
