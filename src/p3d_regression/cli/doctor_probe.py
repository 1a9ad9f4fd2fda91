"""Run as a script in a fresh interpreter: does ``import torch`` make the plugin active there?

Prints one JSON object as its last line. It imports nothing of this package before torch does, and it must report also
where every import fails: hence the many small tries.
"""

import json
import sys
import warnings
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


def main() -> None:
    found: dict[str, Any] = {
        "entry_point": False,
        "supports_autoload": False,
        "active": False,
        "patches": [],
        "plugins": [],
        "contested": {},
        "registry_errors": {},
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found["torch"], found["torch_error"] = _import("torch")
        found["supports_autoload"] = hasattr(sys.modules.get("torch"), "_import_device_backends")
        found["pytorch3dunet"], found["pytorch3dunet_error"] = _import("pytorch3dunet")
        for module in (
            "unet3d.model",
            "unet3d.config",
            "unet3d.losses",
            "unet3d.metrics",
            "unet3d.trainer",
            "unet3d.predictor",
            "datasets.hdf5",
            "datasets.utils",
        ):
            _, error = _import(f"pytorch3dunet.{module}")
            found["pytorch3dunet_error"] = found["pytorch3dunet_error"] or error
        _, found["torchmetrics_error"] = _import("torchmetrics")
    found["warnings"] = [str(w.message) for w in caught if "p3d-regression" in str(w.message)]
    found["entry_point"] = any(e.name == "p3d_regression" for e in entry_points(group="torch.backends"))
    try:
        from p3d_regression.patches import activation

        # not "waiting": every module to patch has been imported
        found["active"], found["patches"] = activation.builder_state() == "applied", activation.patches()
    except Exception as error:
        found["warnings"] = [_in_words(error)]
    for kind in ("activations", "losses", "metrics"):
        _ask_registry(kind, found)
    try:
        from p3d_regression import plugins

        # last: a registry notes what each plugin has added to it
        found["plugins"] = plugins.installed().report()
    except Exception as error:
        found["warnings"] = [_in_words(error)]
    print("\n" + json.dumps(found))


def _ask_registry(kind: str, found: dict[str, Any]) -> None:
    """One that fails decides nothing about the patches: a config may need none of its components."""
    try:
        found["contested"] |= import_module(f"p3d_regression.{kind}.registry").registry().contested()
    except Exception as error:
        # the metrics need torchmetrics, whose failure is reported by itself
        if not (kind == "metrics" and found["torchmetrics_error"]):
            found["registry_errors"][kind] = _in_words(error)


def _import(name: str) -> tuple[str | None, str | None]:
    """Import a module; return its version and what went wrong."""
    try:
        return str(getattr(import_module(name), "__version__", "unknown")), None
    except BaseException as error:
        return None, _in_words(error)


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
