"""``pytorch3dunet.datasets.utils``: a prediction config is checked when a prediction asks for its data.

Each loader keeps the config, which a predictor is given in parts.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function
from p3d_regression.errors import ConfigError
from p3d_regression.patches.predictor import CONFIG
from p3d_regression.prediction.spec import SECTION, options_of
from p3d_regression.upstream.log import without


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
    # with a halo around the patches of the training, as pytorch-3dunet advises, GroupNorm would see other statistics
    advice = without("Found halo shape to be") if _is_blended(config) else nullcontext()
    with advice:
        for loader in loaders:
            setattr(loader, CONFIG, config)
            yield loader


def _is_blended(config: Any) -> bool:
    section = config.get(SECTION) if isinstance(config, Mapping) else None
    try:
        options = options_of(section) if isinstance(section, Mapping) else None
    except ConfigError:
        return False  # the predictor says so, or it is one of another project with keys of its own
    return options is not None and options.averages
