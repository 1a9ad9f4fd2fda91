"""``pytorch3dunet.unet3d.config``: a config is completed from its checkpoint and checked when it is loaded.

So nothing is built before. A training is checked when its trainer is created.
"""

import logging
from collections.abc import Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import Any

from p3d_regression._patching import AnyFunction, Patch, replace_function
from p3d_regression.checks.rule import Mode
from p3d_regression.errors import UnsupportedUpstreamError
from p3d_regression.keys import PLUGIN_KEYS, check_sections
from p3d_regression.patches import activation, program
from p3d_regression.upstream.log import console, say

logger = logging.getLogger(__name__)


def patch(module: ModuleType) -> Iterator[Patch]:
    """Patch the module of the configs, which has just been executed."""
    yield _patch_load_config(module)
    if hasattr(module, "copy_config"):
        yield _patch_copy_config(module)
    if reporting := program.patch():
        yield reporting


def _patch_load_config(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def load_config(*args: Any, **kwargs: Any) -> Any:
            loaded = original(*args, **kwargs)
            if patch.is_applied:
                # (config, path) since pytorch-3dunet 1.7.0, the config alone before
                config = loaded[0] if isinstance(loaded, tuple) else loaded
                _check(config)
                if isinstance(config, dict):
                    _complete(config)
            return loaded

        return load_config

    return replace_function(module, "load_config", wrap, parameters=None)


def _patch_copy_config(module: ModuleType) -> Patch:
    def wrap(original: AnyFunction, patch: Patch) -> AnyFunction:
        @wraps(original)
        def copy_config(*args: Any, **kwargs: Any) -> Any:
            from p3d_regression import group

            if patch.is_applied and group.is_running() and not group.is_main():
                return None
            return original(*args, **kwargs)

        return copy_config

    return replace_function(module, "copy_config", wrap, parameters=None)


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


def _complete(config: dict[str, Any]) -> None:
    """Take from the checkpoint what the config does not say; check a prediction, whose model is built next."""
    from p3d_regression.checks.at_start import check_at_start
    from p3d_regression.model.contract import adopt, mapping

    mode: Mode = "train" if "trainer" in config else "predict"
    if mode == "train" and any(key in mapping(config.get("model")) for key in PLUGIN_KEYS):
        from p3d_regression.training import progress

        progress.prepare()
    try:
        adopted = adopt(config, mode)
    except Exception:
        # a rule reports what is wrong with the checkpoint
        logger.debug("contract", exc_info=True)
        adopted = None
    if adopted and adopted.line:
        say(adopted.line)
    if adopted and adopted.warning:
        console().warning(adopted.warning)
    if mode == "predict":
        from p3d_regression.prediction import sharing
        from p3d_regression.prediction.spec import KEYS, SECTION

        keys = {*mapping(config.get("model")), *mapping(config.get(SECTION))}
        sharing.prepare(config, is_ours=bool(keys & {*PLUGIN_KEYS, *KEYS}))
        if adopted and adopted.units:
            say(adopted.units)
        check_at_start(config, mode)
