"""Upstream versions that do not exist yet: its own code with the builder renamed, or with another signature."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch3dunet

from support.doctor import ask_doctor
from support.lab import training_config, write_config, write_volumes
from support.preforked import Preforked

#: What changed -> text to replace in every file.
CHANGES: dict[str, tuple[str, str]] = {
    "builder renamed": ("get_model", "build_model"),
    "builder with another signature": (
        "def get_model(model_config):",
        "def get_model(name, model_config=None):\n    model_config = name",
    ),
    "model module moved": ("unet3d.model", "unet3d.networks"),
}


@pytest.fixture
def changed(forked: Preforked, tmp_path: Path) -> Callable[[str], Preforked]:
    """Put a changed copy of upstream in front of the real one."""

    def change(name: str) -> Preforked:
        copy = tmp_path / "site" / "pytorch3dunet"
        shutil.copytree(Path(pytorch3dunet.__file__).parent, copy)
        for path in copy.rglob("*.py"):
            path.write_text(path.read_text().replace(*CHANGES[name]))
        if name == "model module moved":
            (copy / "unet3d" / "model.py").rename(copy / "unet3d" / "networks.py")
        return forked.having(PYTHONPATH=str(copy.parent))

    return change


def train(environment: Preforked, directory: Path, **model: object):
    write_volumes(directory)
    config = training_config(directory, {"name": "UNet3D", **model}, iterations=1)
    return environment.run("train3dunet", "--config", write_config(directory / "train.yml", config))


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_is_a_clear_error(changed, tmp_path: Path, change: str) -> None:
    result = train(changed(change), tmp_path, final_activation="none")
    assert result.returncode != 0
    error = result.stderr.splitlines()[-1]
    assert "UnsupportedUpstreamError: model.final_activation: 'none' would be ignored" in error
    assert "does not support the builder of this pytorch3dunet (pytorch3dunet.unet3d.model" in error
    assert "is_segmentation: false" in error
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_without_the_key_there_is_no_effect(changed, tmp_path: Path, change: str) -> None:
    result = train(changed(change), tmp_path)
    assert result.returncode == 0, result.stderr
    said = (result.stdout + result.stderr).replace(str(tmp_path), "").splitlines()
    # a regression loss before a Sigmoid: the one thing that there is to say about such a config
    assert all(" WARNING P3DRegression - P3D106 " in line for line in said if "p3d" in line.lower())


@pytest.mark.parametrize("change", ["builder renamed", "builder with another signature"])
def test_from_python_the_key_is_a_clear_error_too(changed, change: str) -> None:
    result = changed(change).python_code("""
        import pytorch3dunet.unet3d.trainer as trainer
        build = vars(trainer).get("get_model") or trainer.build_model
        build({"name": "UNet3D", "in_channels": 1, "out_channels": 1, "final_activation": "none"})
    """)
    assert result.returncode != 0
    assert "UnsupportedUpstreamError: model.final_activation: 'none' reached the class UNet3D" in result.stderr


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("builder with another signature", "pytorch-3dunet takes (name, model_config), expected (model_config)"),
        ("builder renamed", "pytorch-3dunet has no such function"),
        ("model module moved", "No module named 'pytorch3dunet.unet3d.model'"),
    ],
)
def test_doctor_says_what_changed(changed, change: str, detail: str) -> None:
    result = ask_doctor(changed(change), "--json")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert found["active"] is False
    assert "does not support pytorch3dunet" in found["reason"]
    assert detail in found["reason"]
    assert "applied" not in {p["state"] for p in found["patches"] if p["target"].endswith("get_model")}
