"""``pytorch3dunet.unet3d.config``: a config whose keys nobody would honour is refused when it is loaded."""

from collections.abc import Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function
from p3d_regression.errors import UnsupportedUpstreamError
from p3d_regression.keys import PLUGIN_KEYS, check_sections
from p3d_regression.patches import activation


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the configs, which has just been executed."""
    yield _patch_load_config(module)


def _patch_load_config(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def load_config(*args: Any, **kwargs: Any) -> Any:
            loaded = original(*args, **kwargs)
            if patch.is_applied:
                # (config, path) since pytorch-3dunet 1.7.0, the config alone before
                _check(loaded[0] if isinstance(loaded, tuple) else loaded)
            return loaded

        return load_config

    return replace_function(module, "load_config", wrap, parameters=None)


def _check(config: object) -> None:
    if not isinstance(config, Mapping):
        return
    check_sections(config)
    model = config.get("model")
    if not isinstance(model, Mapping):
        return
    for key in (key for key in PLUGIN_KEYS if key in model):
        if not activation.builder_is_ready():
            raise UnsupportedUpstreamError(
                f"model.{key}: {model[key]!r} would be ignored. {activation.unsupported_builder()}"
            )
