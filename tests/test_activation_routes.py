"""However upstream and torch are imported: the builder understands the key.

Most interpreters here are forks (see support/preforked.py). Fresh ones show what a fork cannot: that torch loads the
entry point, the console script, workers that are spawned, and an editable installation.
"""

import shutil
from pathlib import Path

import pytest

from support.environments import ROOT, Environment, bare_environment, install_to, pip
from support.lab import training_config, write_config, write_volumes
from support.preforked import Preforked

#: Ends each piece of code below: the builder in `get_model` is patched, once, and makes regression models.
CHECK = """
import p3d_regression
assert p3d_regression.is_active()
config = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 4}
assert type(get_model(config).final_activation).__name__ == "Sigmoid"
assert get_model({**config, "final_activation": "none"}).final_activation is None
assert not hasattr(get_model.__wrapped__, "__wrapped__")
import pytorch3dunet.unet3d.model, pytorch3dunet.unet3d.trainer, pytorch3dunet.predict
for module in (pytorch3dunet.unet3d.model, pytorch3dunet.unet3d.trainer, pytorch3dunet.predict):
    assert module.get_model is get_model, module
"""

MODEL_FIRST = "from pytorch3dunet.unet3d.model import get_model"
ALL_IMPORTED = """
from pytorch3dunet.unet3d.model import get_model as builder_imported_before
from pytorch3dunet.unet3d.model import get_model
import pytorch3dunet.train, pytorch3dunet.predict, p3d_regression
"""


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("import torch\n" + MODEL_FIRST, id="torch first"),
        pytest.param(MODEL_FIRST, id="model module first"),
        pytest.param("import pytorch3dunet.unet3d.model as m\nget_model = m.get_model", id="model module as a name"),
        pytest.param("from pytorch3dunet.unet3d.trainer import get_model", id="trainer first"),
        pytest.param("from pytorch3dunet.predict import get_model", id="predict first"),
        pytest.param("import p3d_regression\n" + MODEL_FIRST, id="plugin first"),
        pytest.param("from pytorch3dunet.unet3d.config import load_config\n" + MODEL_FIRST, id="config module first"),
        pytest.param(
            "import p3d_regression; p3d_regression.activate(); p3d_regression.activate()\n"
            + MODEL_FIRST
            + "\np3d_regression.activate()",
            id="activated again and again",
        ),
        pytest.param(
            "import importlib, pytorch3dunet.unet3d.model as m, pytorch3dunet.unet3d.trainer as t\n"
            "import pytorch3dunet.predict as p\n"
            "for module in (m, t, p): importlib.reload(module)\n"
            "get_model = m.get_model",
            id="reloaded",
        ),
    ],
)
def test_active_whatever_is_imported_first(forked: Preforked, imports: str) -> None:
    forked.check(imports + "\n" + CHECK)


@pytest.mark.parametrize("imports", ["import torch\n" + MODEL_FIRST, MODEL_FIRST], ids=["torch first", "model first"])
def test_active_in_a_fresh_interpreter(plugin: Environment, imports: str) -> None:
    plugin.check(imports + "\n" + CHECK)


def test_activate_after_everything_was_imported(forked_bare: Preforked, wheel: Path, tmp_path: Path) -> None:
    """Names that were imported before are rebound, the user's own too."""
    install_to(tmp_path, wheel)
    environment = forked_bare.having(PYTHONPATH=str(tmp_path), TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    environment.check(
        ALL_IMPORTED
        + """
assert not p3d_regression.is_active()
assert not hasattr(get_model, "__wrapped__")
p3d_regression.activate()
from pytorch3dunet.unet3d.model import get_model
"""
        + CHECK
        + "\nassert pytorch3dunet.train.load_config.__wrapped__"
    )


def test_deactivate_gives_upstream_back(forked: Preforked) -> None:
    forked.check(
        ALL_IMPORTED
        + """
import importlib
from pytorch3dunet.unet3d.model import UNet3D
patched = get_model
assert hasattr(patched, "__wrapped__")
p3d_regression.deactivate()
p3d_regression.deactivate()
assert not p3d_regression.is_active()
modules = pytorch3dunet.unet3d.model, pytorch3dunet.unet3d.trainer, pytorch3dunet.predict
assert all(module.get_model is patched.__wrapped__ for module in modules)
assert not hasattr(UNet3D.__init__, "__wrapped__")
assert not hasattr(pytorch3dunet.train.load_config, "__wrapped__")

# someone may still hold our function: it does what upstream's does
config = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 4}
model = patched({**config, "final_activation": "none"})
assert type(model.final_activation).__name__ == "Sigmoid"

importlib.reload(pytorch3dunet.unet3d.model)
assert not hasattr(pytorch3dunet.unet3d.model.get_model, "__wrapped__")
importlib.reload(pytorch3dunet.unet3d.trainer)
importlib.reload(pytorch3dunet.predict)
p3d_regression.activate()
from pytorch3dunet.unet3d.model import get_model
"""
        + CHECK
    )


def test_eight_threads_importing_at_once(forked: Preforked) -> None:
    forked.check(
        """
import importlib, sys, threading
sys.setswitchinterval(1e-5)
start, found = threading.Barrier(8), []
def load():
    start.wait()
    found.append(importlib.import_module("pytorch3dunet.unet3d.model").get_model)
threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 8 and len(set(found)) == 1
get_model = found[0]
"""
        + CHECK
    )


def test_spawned_workers_build_and_return_models(plugin: Environment, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
import multiprocessing

CONFIG = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 4}

def build(_):
    from pytorch3dunet.unet3d.model import get_model
    return get_model({**CONFIG, "final_activation": "none"})

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for model in pool.map(build, range(2)):
            assert model.final_activation is None
    print("ok")
""")
    result = plugin.run("python", program)
    assert result.stdout.splitlines()[-1] == "ok", result.stderr


@pytest.mark.parametrize("program", ["train3dunet", "-m pytorch3dunet.train"])
def test_the_command_and_the_module(plugin: Environment, forked: Preforked, tmp_path: Path, program: str) -> None:
    """A bad value is the quickest proof that the plugin was there. The command runs in a fresh interpreter."""
    write_volumes(tmp_path)
    config = write_config(
        tmp_path / "train.yml", training_config(tmp_path, {"name": "UNet3D", "final_activation": "nome"})
    )
    command = ["python", *program.split()] if program.startswith("-m") else [program]
    environment = forked if program.startswith("-m") else plugin
    result = environment.run(*command, "--config", config)
    assert result.returncode == 1
    assert "ConfigError: model.final_activation" in result.stderr


def test_installed_to_a_directory_on_pythonpath(forked_bare: Preforked, wheel: Path, tmp_path: Path) -> None:
    install_to(tmp_path, wheel)
    forked_bare.having(PYTHONPATH=str(tmp_path)).check(
        MODEL_FIRST + CHECK + f"assert {str(tmp_path)!r} in p3d_regression.__file__"
    )


def test_installed_editable(tmp_path: Path) -> None:
    environment = bare_environment(tmp_path / "editable")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("--python", environment.python, "install", "--no-deps", "--no-build-isolation", "--editable", source)
    environment.check(MODEL_FIRST + CHECK + f"assert {str(source)!r} in p3d_regression.__file__")


def test_without_the_plugin_there_is_no_trace(forked_bare: Preforked) -> None:
    forked_bare.check("import torch, importlib.util as u\nassert u.find_spec('p3d_regression') is None")


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_disabled(forked: Preforked, value: str) -> None:
    forked.having(P3D_REGRESSION_DISABLE=value).check(
        MODEL_FIRST
        + """
import p3d_regression
p3d_regression.activate()
assert not p3d_regression.is_active()
assert not hasattr(get_model, "__wrapped__")
"""
    )


def test_reload_of_the_model_module_keeps_the_trainer_working(forked: Preforked) -> None:
    forked.check(
        """
import importlib, pytorch3dunet.unet3d.model, pytorch3dunet.unet3d.trainer as trainer
importlib.reload(pytorch3dunet.unet3d.model)
config = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 4}
assert trainer.get_model({**config, "final_activation": "none"}).final_activation is None
"""
    )


def test_debug_lines_tell_what_was_patched(forked: Preforked) -> None:
    result = forked.python_code("import logging; logging.basicConfig(level=10)\nimport pytorch3dunet.unet3d.model")
    assert "DEBUG:p3d_regression._patching:pytorch3dunet.unet3d.model.get_model: applied" in result.stderr


#: Everything that upstream imports is loaded, and nothing of its own: no import but of torch gets as far as our hook.
ALL_BUT_UPSTREAM = """
import sys, pytorch3dunet.train, pytorch3dunet.predict
for name in [name for name in sys.modules if name.startswith("pytorch3dunet")]:
    del sys.modules[name]
"""


TYPEGUARD = "import typeguard\ntypeguard.install_import_hook('pytorch3dunet')\n"

ANY_OTHER = """
from importlib.machinery import PathFinder
class Foreign:
    @staticmethod
    def find_spec(name, path, target=None):
        return PathFinder.find_spec(name, path, target) if name.startswith("pytorch3dunet") else None
sys.meta_path.insert(0, Foreign)
"""


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param("import torch\n" + TYPEGUARD, id="typeguard after torch"),
        pytest.param(ALL_BUT_UPSTREAM + TYPEGUARD, id="typeguard after everything"),
        pytest.param(ALL_BUT_UPSTREAM + ANY_OTHER, id="any other after everything"),
    ],
)
def test_another_import_hook_hides_nothing(forked: Preforked, foreign: str) -> None:
    forked.check(foreign + MODEL_FIRST + CHECK)


def test_an_import_hook_before_torch_hides_nothing(plugin: Environment) -> None:
    plugin.check(TYPEGUARD + MODEL_FIRST + CHECK)


def test_taken_off_the_meta_path_it_comes_back(plugin: Environment) -> None:
    plugin.check(
        "import sys; saved = list(sys.meta_path); import torch; sys.meta_path[:] = saved\n" + MODEL_FIRST + CHECK
    )


def test_the_config_may_be_loaded_before_the_builder_is_imported(forked: Preforked, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yml", training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"}))
    forked.check(f"""
import sys
sys.argv = ["script", "--config", {str(config)!r}]
from pytorch3dunet.unet3d.config import load_config
config, _ = load_config()
from pytorch3dunet.unet3d.model import get_model
assert get_model(config["model"]).final_activation is None
""")


def test_a_stub_of_the_model_module_is_left_alone(forked: Preforked) -> None:
    forked.check("""
import sys, unittest.mock
sys.modules["pytorch3dunet.unet3d.model"] = stub = unittest.mock.MagicMock()
import torch, p3d_regression
import pytorch3dunet.unet3d.trainer
assert sys.modules["pytorch3dunet.unet3d.model"] is stub
p3d_regression.deactivate()
assert not [finder for finder in sys.meta_path if "p3d" in type(finder).__module__]
""")
