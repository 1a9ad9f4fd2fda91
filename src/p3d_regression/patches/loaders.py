"""``pytorch3dunet.datasets.utils``: a prediction config is checked when a prediction asks for its data.

Each loader keeps the config, which a predictor is given in parts.
"""

from collections.abc import Iterable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function
from p3d_regression.patches.predictor import CONFIG


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the data loaders, which has just been executed."""
    yield _patch_get_test_loaders(module)


def _patch_get_test_loaders(module: ModuleType) -> Patch:
    # not the predictor's own function: it has another name in each version, and is not patched in `python -m`
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def get_test_loaders(config: Any) -> Any:
            if not patch.is_applied:
                return original(config)
            from p3d_regression.checks.at_start import check_at_start

            check_at_start(config, "predict")
            return _with_config(original(config), config)

        return get_test_loaders

    return replace_function(module, "get_test_loaders", wrap, parameters=["config"])


def _with_config(loaders: Iterable[Any], config: Any) -> Iterator[Any]:
    for loader in loaders:
        setattr(loader, CONFIG, config)
        yield loader
