"""What is patched in pytorch-3dunet, when, and how it is undone.

The other files of this package patch one module or two of it each. Importing this one imports none of them, and
neither torch nor pytorch3dunet: it runs inside ``import torch``.
"""

import logging
import os
import sys
from contextlib import suppress
from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from p3d_regression._import_hook import ImportHook, call_after_import
from p3d_regression._version import __version__

if TYPE_CHECKING:
    from p3d_regression._patching import Patch

logger = logging.getLogger(__name__)

MODEL = "pytorch3dunet.unet3d.model"
BUILDER = f"{MODEL}.get_model"

#: Module of pytorch-3dunet -> the file of this package that patches it, with its ``patch(module)``.
PATCHERS = {
    MODEL: "p3d_regression.patches.model",
    "pytorch3dunet.unet3d.utils": "p3d_regression.patches.utils",
    "pytorch3dunet.unet3d.config": "p3d_regression.patches.config",
    "pytorch3dunet.unet3d.losses": "p3d_regression.patches.criteria",
    "pytorch3dunet.unet3d.metrics": "p3d_regression.patches.criteria",
    "pytorch3dunet.unet3d.trainer": "p3d_regression.patches.trainer",
    "pytorch3dunet.datasets.hdf5": "p3d_regression.patches.datasets",
    "pytorch3dunet.datasets.utils": "p3d_regression.patches.loaders",
    "pytorch3dunet.unet3d.predictor": "p3d_regression.patches.predictor",
}

_lock = RLock()
_hook: ImportHook | None = None
_patches: "list[Patch]" = []
_failures: dict[str, str] = {}


def activate() -> None:
    """Make pytorch-3dunet understand the plugin keys, in this process, whatever has been imported already.

    ``import torch`` does this by itself where the package is installed; calling it again repairs what other
    import hooks may have undone, and changes nothing else.
    With ``P3D_REGRESSION_DISABLE=1`` in the environment it changes nothing; :func:`is_active` tells.
    """
    global _hook
    if is_disabled():
        return
    with _lock:
        if _hook is None:
            _hook = call_after_import(dict.fromkeys(PATCHERS, _patch), witness="torch")
        else:
            _hook.install()


def deactivate() -> None:
    """Give pytorch-3dunet back its own functions, in this process. Models that are built keep what they have."""
    global _hook
    with _lock:
        if _hook is None:
            return
        _hook.uninstall()
        _hook = None
        while _patches:
            _patches.pop().undo()
        _failures.clear()


def is_active() -> bool:
    """Whether the model builder of pytorch-3dunet understands the plugin keys in this process, now or once imported."""
    return builder_state() in ("applied", "waiting")


def is_disabled() -> bool:
    """Whether ``P3D_REGRESSION_DISABLE`` switches the plugin off."""
    return os.environ.get("P3D_REGRESSION_DISABLE", "").strip().lower() not in ("", "0", "false", "no", "off")


def patches() -> list[dict[str, str]]:
    """What was done to pytorch-3dunet in this process.

    Returns:
        One dict per patch with ``target``, ``detail`` and ``state``: ``applied``; ``not needed``;
        ``unsupported``, pytorch-3dunet is not as expected there; ``failed``, the patch broke; ``waiting``, the module
        is not imported yet; ``missed``, it was imported past the plugin; ``inactive``, nothing is patched in this
        process. Until its module is patched, the ``target`` is the module.
    """
    with _lock:
        found = {patch.target: patch.report() for patch in _patches}
        for module, error in _failures.items():
            found[module] = {"target": module, "state": "failed", "detail": error}
    for module in PATCHERS:
        if not any(target.startswith(module) for target in found):
            state, detail = _unpatched(module)
            found[module] = {"target": module, "state": state, "detail": detail}
    return list(found.values())


def _unpatched(module: str) -> tuple[str, str]:
    if _hook is None:
        return "inactive", "the plugin is not active"
    if module in sys.modules:
        return "missed", "another import hook imported it without the plugin; call p3d_regression.activate()"
    return "waiting", "its module is not imported"


def builder_state() -> str:
    """The state of the one patch that matters most: of the model builder."""
    states = {patch["target"]: patch["state"] for patch in patches()}
    return states.get(BUILDER) or states[MODEL]


def builder_is_ready() -> bool:
    """Import and patch the model builder if that has not happened; whether it understands the keys now."""
    if builder_state() in ("waiting", "missed"):
        with suppress(Exception):
            _patch(import_module(MODEL))
    return builder_state() == "applied"


def unsupported_builder() -> str:
    """Why the model builder is not patched, and what to do: the rest of an error message."""
    details = "; ".join(f"{p['target']}: {p['detail']}" for p in patches() if p["target"] in (MODEL, BUILDER))
    return (
        f"p3d-regression {__version__} does not support the builder of this pytorch3dunet ({details}). "
        "Install a pytorch3dunet that it supports (see `p3d-regression doctor`), or write is_segmentation: false "
        "instead of the key, which builds a model without a final activation."
    )


def _patch(module: ModuleType) -> None:
    """Patch a module that has just been imported; patched again it stays as it is.

    Never raises: the import is that of pytorch-3dunet.
    """
    name = module.__name__
    try:
        patcher = import_module(PATCHERS[name])
        with _lock:
            for patch in patcher.patch(module):
                if not any(patch is known for known in _patches):
                    _patches.append(patch)
        _failures.pop(name, None)
    except Exception as error:
        first = not _failures
        _failures[name] = f"{type(error).__name__}: {error}"
        if name == MODEL and builder_state() != "applied":
            _refuse_key(module)
        if first:
            # logged, not warned of: under `python -W error` a warning would break the import of pytorch-3dunet
            logger.warning(
                "p3d-regression could not patch %s (%s): using model.final_activation in this process is an error. "
                "`p3d-regression doctor` gives details.",
                name,
                _failures[name],
            )


def _refuse_key(module: ModuleType) -> None:
    """The last resort where the plugin itself is broken: a key stops the model builder.

    Needs nothing of the package, because anything of it may be what is broken.
    """
    builder = vars(module).get("get_model")
    if not callable(builder):
        return

    def get_model(model_config: Any, *args: Any, **kwargs: Any) -> Any:
        for key in ("final_activation", "target_scaling"):
            if _failures and isinstance(model_config, dict) and key in model_config:
                raise RuntimeError(f"model.{key}: {model_config[key]!r} would be ignored. {unsupported_builder()}")
        return builder(model_config, *args, **kwargs)

    vars(module)["get_model"] = get_model
