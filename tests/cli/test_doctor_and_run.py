"""``p3d-regression doctor`` and ``p3d-regression run``, as commands.

Most are forks (see support/preforked.py). Fresh interpreters show what a fork cannot: the console script, the
interpreter that the doctor starts itself, and stand-ins for packages that a fork has imported already.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import p3d_regression
from p3d_regression.cli.main import main
from support.doctor import ask_doctor
from support.environments import Environment, install_to
from support.lab import Lab, Trained, prediction_config, training_config, write_config, write_volumes
from support.preforked import Preforked


def diagnose(environment: Environment | Preforked, *, code: int) -> dict:
    if isinstance(environment, Preforked):
        result = ask_doctor(environment, "--json")
    else:
        result = environment.run("p3d-regression", "doctor", "--json")
    assert result.returncode == code, result.stdout + result.stderr
    return json.loads(result.stdout)


class TestDoctor:
    def test_active(self, plugin: Environment) -> None:
        found = diagnose(plugin, code=0)
        assert found["active"] is True
        assert found["reason"] is None
        assert found["versions"]["p3d-regression"] == p3d_regression.__version__
        assert found["versions"]["python"] == sys.version.split()[0]
        assert all(found["versions"].values())
        assert {patch["target"]: patch["state"] for patch in found["patches"]} == {
            "pytorch3dunet.unet3d.model.get_model": "applied",
            "pytorch3dunet.unet3d.model constructors": "applied",
            "pytorch3dunet.unet3d.model loading of weights": "applied",
            "pytorch3dunet.unet3d.predictor predictors __init__": "applied",
            "pytorch3dunet.unet3d.predictor predictors __call__": "applied",
            "pytorch3dunet.unet3d.config.load_config": "applied",
            "pytorch3dunet.unet3d.config.copy_config": "applied",
            "pytorch3dunet.unet3d.utils.save_checkpoint": "applied",
            "pytorch3dunet.unet3d.losses.get_loss_criterion": "applied",
            "pytorch3dunet.unet3d.metrics.get_evaluation_metric": "applied",
            "pytorch3dunet.unet3d.trainer.create_trainer": "applied",
            "pytorch3dunet.unet3d.trainer.is_model_2d": "applied",
            "pytorch3dunet.datasets.hdf5.ZarrDataset": "applied",
            "pytorch3dunet.datasets.utils.get_test_loaders": "applied",
        }

    def test_json_does_not_tell_the_home_directory(self, forked: Preforked, tmp_path: Path) -> None:
        command = tmp_path / "bin" / "train3dunet"
        command.parent.mkdir()
        command.touch(mode=0o755)
        found = diagnose(forked.having(HOME=str(tmp_path), PATH=str(command.parent)), code=0)
        assert found["commands"]["train3dunet"]["path"] == "~/bin/train3dunet"
        assert str(tmp_path) not in json.dumps(found)

    def test_for_a_person(self, forked: Preforked) -> None:
        result = ask_doctor(forked.having(COLUMNS="40"))
        assert result.returncode == 0, result.stderr
        first = " ".join(result.stdout.split())
        assert first.startswith("OK, active: train3dunet and predict3dunet understand model.final_activation python ")
        assert "get_model" not in result.stdout
        assert "applied         pytorch3dunet.unet3d.model.get_model" in ask_doctor(forked, "-v").stdout

    @pytest.mark.parametrize(
        ("variable", "value", "reason"),
        [
            ("TORCH_DEVICE_BACKEND_AUTOLOAD", "0", "TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from loading plugins"),
            ("P3D_REGRESSION_DISABLE", "1", "P3D_REGRESSION_DISABLE=1 switches the plugin off"),
        ],
    )
    def test_switched_off(self, forked: Preforked, variable: str, value: str, reason: str) -> None:
        found = diagnose(forked.having(**{variable: value}), code=1)
        assert found["active"] is False
        assert found["reason"].startswith(reason)
        assert {patch["state"] for patch in found["patches"]} == {"inactive"}

    def test_not_active_for_a_person(self, forked: Preforked) -> None:
        result = ask_doctor(forked.having(TORCH_DEVICE_BACKEND_AUTOLOAD="0"))
        assert result.returncode == 1
        assert result.stdout.startswith("NOT active: TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from loading plugins")
        assert "p3d-regression run train3dunet" in result.stdout

    def test_importable_but_not_installed(self, forked_bare: Preforked, wheel: Path, tmp_path: Path) -> None:
        install_to(tmp_path, wheel)
        for metadata in tmp_path.glob("*.dist-info"):
            shutil.rmtree(metadata)
        found = diagnose(forked_bare.having(PYTHONPATH=str(tmp_path)), code=1)
        assert found["reason"].startswith("p3d-regression is importable but not installed")

    @pytest.mark.parametrize(
        ("package", "source", "reason"),
        [
            ("pytorch3dunet", "raise ImportError('no upstream here')", "pytorch3dunet cannot be imported"),
            ("torch", "raise ImportError('no torch here')", "torch cannot be imported"),
            ("torch", "__version__ = '2.4.1'", "torch 2.4.1 does not load plugins; install torch 2.5 or newer"),
        ],
    )
    def test_missing_or_old_packages(
        self, plugin: Environment, forked: Preforked, tmp_path: Path, package: str, source: str, reason: str
    ) -> None:
        """A stand-in in front of the real package: neither can be uninstalled or downgraded side by side."""
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(source)
        if "2.4" in source:  # upstream must still be importable on it
            fake_upstream = tmp_path / "pytorch3dunet"
            fake_upstream.mkdir()
            (fake_upstream / "__init__.py").write_text("__version__ = '1.8.0'")
        programs = plugin if package == "torch" else forked
        found = diagnose(programs.having(PYTHONPATH=str(tmp_path)), code=1)
        assert found["active"] is False
        assert found["reason"].startswith(reason)

    def test_a_crashing_interpreter_is_reported(self, plugin: Environment, tmp_path: Path) -> None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").write_text("import os; os._exit(3)")
        found = diagnose(plugin.having(PYTHONPATH=str(tmp_path)), code=1)
        assert "ended with exit code 3" in found["reason"]

    def test_a_torchvision_of_another_torch_costs_metrics_only(self, plugin: Environment, tmp_path: Path) -> None:
        """torchmetrics imports it, and stops with what a torchvision that was built for another torch raises."""
        (tmp_path / "torchvision").mkdir()
        error = "operator torchvision::nms does not exist"
        (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({error!r})")
        found = diagnose(plugin.having(PYTHONPATH=str(tmp_path)), code=0)
        assert found["reason"] is None
        assert {patch["state"] for patch in found["patches"]} == {"applied"}
        assert found["torchmetrics_error"] == (
            f"cannot be imported (RuntimeError: {error}): its metrics are not available; install the torchvision that "
            f"fits torch {found['versions']['torch']}"
        )
        assert found["registry_errors"] == {}

    def test_a_command_of_another_environment_is_noticed(self, forked: Preforked, tmp_path: Path) -> None:
        other = tmp_path / "train3dunet"
        other.write_text("#!/bin/sh\n")
        other.chmod(0o755)
        found = diagnose(forked.having(PATH=str(tmp_path)), code=0)
        assert found["commands"]["train3dunet"] == {"path": str(other), "this_environment": False}
        assert found["commands"]["predict3dunet"]["path"] is None


class TestRun:
    def test_is_the_plugin_where_torch_does_not_load_it(
        self, plugin: Environment, forked: Preforked, lab: Lab, tmp_path: Path
    ) -> None:
        """Same bits as the plain commands with the plugin active."""
        write_volumes(tmp_path)
        model = {"name": "UNet3D", "final_activation": "none"}
        runs = [("train3dunet", training_config, plugin), ("predict3dunet", prediction_config, forked)]
        for command, make, programs in runs:
            config = write_config(tmp_path / f"{command}.yml", make(tmp_path, model))
            environment = programs.having(TORCH_DEVICE_BACKEND_AUTOLOAD="0")
            result = environment.run("p3d-regression", "run", command, "--config", config)
            assert result.returncode == 0, result.stderr
        expected, ours = lab.train("plugin", final_activation="none"), Trained(tmp_path, "", "")
        assert ours.scalars == expected.scalars
        assert (ours.prediction == expected.prediction).all()

    def test_a_config_error_is_one_clear_message(self, forked: Preforked, tmp_path: Path) -> None:
        write_volumes(tmp_path)
        config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "nome"})
        result = forked.run(
            "p3d-regression", "run", "train3dunet", "--config", write_config(tmp_path / "t.yml", config)
        )
        assert result.returncode == 1
        assert result.stderr.startswith("Error: model.final_activation: 'nome'")
        assert "Traceback" not in result.stderr

    def test_upstreams_own_help_and_usage(self, forked: Preforked) -> None:
        result = forked.run("p3d-regression", "run", "train3dunet", "--help")
        assert result.returncode == 0
        assert result.stdout.startswith("usage: train3dunet")
        assert forked.run("p3d-regression", "run", "train3dunet").returncode == 2

    def test_refuses_to_run_disabled(self, forked: Preforked) -> None:
        result = forked.having(P3D_REGRESSION_DISABLE="1").run("p3d-regression", "run", "train3dunet", "--config", "x")
        assert result.returncode == 2
        assert "P3D_REGRESSION_DISABLE is set" in result.stderr

    def test_knows_two_commands(self, forked: Preforked) -> None:
        result = forked.run("p3d-regression", "run", "rm")
        assert result.returncode == 2
        assert "train3dunet" in result.stderr


def test_version_and_help() -> None:
    assert p3d_regression.__version__ in CliRunner().invoke(main, ["--version"]).stdout
    shown = CliRunner().invoke(main, ["--help"]).stdout
    for command in main.commands:
        assert f"  {command} " in shown
        described = CliRunner().invoke(main, [command, "--help"]).stdout
        assert described.startswith(f"Usage: main {command}")
        assert "upstream" not in described.lower()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_as_a_module_and_on_a_full_device(plugin: Environment) -> None:
    """Where the scripts are not on PATH; and with what an interpreter prints at its end."""
    with Path("/dev/full").open("w") as full:
        command = [plugin.python, "-m", "p3d_regression", "rule"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "Error: cannot write to standard output: No space left on device\n"
