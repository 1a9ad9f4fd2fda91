"""Everything that offers components and rules in this process: parts of this project, then installed plugins."""

from importlib import import_module

from p3d_regression.once import once
from p3d_regression.plugins import Plugins

BUILT_IN = "built-in"
TORCH_NN = "torch.nn"
TORCHMETRICS = "torchmetrics"
UPSTREAM = "pytorch3dunet"

#: Modules of this project that implement the hooks, and what they call themselves. The first offer of a name counts.
OWN = {
    "p3d_regression.activations.builtin": BUILT_IN,
    "p3d_regression.activations.torch_nn": TORCH_NN,
    "p3d_regression.losses.builtin": BUILT_IN,
    "p3d_regression.losses.torch_nn": TORCH_NN,
    "p3d_regression.metrics.builtin": BUILT_IN,
    "p3d_regression.metrics.of_torchmetrics": TORCHMETRICS,
    "p3d_regression.upstream.offers": UPSTREAM,
}


@once
def everything() -> Plugins:
    """The parts of this project and the plugins of this process; plugins are loaded at the first call."""
    plugins = Plugins()
    for module, name in OWN.items():
        plugins.add(name, import_module(module))
    plugins.add_installed()
    return plugins
