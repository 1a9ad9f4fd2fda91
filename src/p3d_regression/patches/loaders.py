"""``pytorch3dunet.datasets.utils``: a prediction config is checked when a prediction asks for its data."""

from collections.abc import Iterator
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the data loaders, which has just been executed."""
    yield _patch_get_test_loaders(module)


def _patch_get_test_loaders(module: ModuleType) -> Patch:
    # not the predictor's own function: it has another name in each version, and is not patched in `python -m`
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def get_test_loaders(config: Any) -> Any:
            if patch.is_applied:
                from p3d_regression.checks.at_start import check_at_start

                check_at_start(config, "predict")
            return original(config)

        return get_test_loaders

    return replace_function(module, "get_test_loaders", wrap, parameters=["config"])
