"""Run as a script in a fresh interpreter: does ``import torch`` make the plugin active there?

Prints one JSON object as its last line. It imports nothing of the package itself before torch has had its
chance to, and it must say what is wrong where everything is: hence the many small tries.
"""

import json
import sys
import warnings
from importlib import import_module
from importlib.metadata import entry_points


def main() -> None:
    found: dict[str, object] = {
        "entry_point": False,
        "supports_autoload": False,
        "active": False,
        "patches": [],
        "plugins": [],
        "contested": {},
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
            "datasets.utils",
        ):
            _, error = _import(f"pytorch3dunet.{module}")
            found["pytorch3dunet_error"] = found["pytorch3dunet_error"] or error
    found["warnings"] = [str(w.message) for w in caught if "p3d-regression" in str(w.message)]
    found["entry_point"] = any(e.name == "p3d_regression" for e in entry_points(group="torch.backends"))
    try:
        from p3d_regression.patches import activation

        # "waiting" is not enough here: everything that there is to patch has been imported
        found["active"], found["patches"] = activation.builder_state() == "applied", activation.patches()
        from p3d_regression import plugins
        from p3d_regression.activations.registry import registry as activations
        from p3d_regression.losses.registry import registry as losses
        from p3d_regression.metrics.registry import registry as metrics

        contested = [registry().contested() for registry in (activations, losses, metrics)]
        found["contested"] = {name: claims for part in contested for name, claims in part.items()}
        found["plugins"] = plugins.installed().report()
    except Exception as error:
        found["warnings"] = [f"{type(error).__name__}: {error}"]
    print("\n" + json.dumps(found))


def _import(name: str) -> tuple[str | None, str | None]:
    """Import a module; return its version and what went wrong."""
    try:
        return str(getattr(import_module(name), "__version__", "unknown")), None
    except BaseException as error:
        return None, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
