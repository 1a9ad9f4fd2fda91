"""One training, prediction and evaluation in the environment at hand, step by step, with any version of pytorch-3dunet.

    python tests/smoke.py                               # prints what passed
    python tests/smoke.py --add docs/compatibility.json # and adds it to the table of the documentation

Needs the package and pytorch-3dunet, nothing of the tests. Exit status: 0 if all steps pass.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml


def volumes(directory: Path) -> None:
    """A raw volume and labels far outside of what a sigmoid can reach; both (12, 80, 80)."""
    draw = np.random.default_rng(0)
    for name in ("train", "val", "test"):
        label = 300 + 100 * np.sin(np.arange(76800).reshape(12, 80, 80) / 500) + draw.normal(size=(12, 80, 80))
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file["raw"] = (label + 10 * draw.normal(size=label.shape)).astype(np.float32)
            file["label"] = label.astype(np.float32)


def configs(directory: Path) -> None:
    """A training and a prediction config that every version of pytorch-3dunet since 1.3.8 reads."""
    model = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 8}
    model |= {"layer_order": "gcr"}
    raw = [{"name": "Standardize", "mean": 300.0, "std": 100.0}, {"name": "ToTensor", "expand_dims": True}]
    slices = {"name": "SliceBuilder", "patch_shape": [8, 64, 64], "stride_shape": [4, 16, 16]}

    def phase(name: str, *, labels: bool) -> dict[str, Any]:
        transformer = {"raw": raw} | ({"label": raw[1:]} if labels else {})
        return {"file_paths": [str(directory / f"{name}.h5")], "slice_builder": slices, "transformer": transformer}

    common = {"dataset": "StandardHDF5Dataset", "num_workers": 0, "batch_size": 1}
    common |= {"raw_internal_path": "raw", "label_internal_path": "label"}
    train = {
        "manual_seed": 0,
        "model": model | {"final_activation": "none", "target_scaling": "standardize"},
        "loss": {"name": "MSELoss"},
        "eval_metric": {"name": "R2Score"},
        "optimizer": {"name": "Adam", "learning_rate": 0.01},
        "lr_scheduler": {"name": "MultiStepLR", "milestones": [1000], "gamma": 1.0},
        "trainer": {
            "checkpoint_dir": str(directory / "checkpoints"),
            "max_num_epochs": 100,
            "max_num_iterations": 6,
            "validate_after_iters": 3,
            "log_after_iters": 3,
        },
        "loaders": common | {"train": phase("train", labels=True), "val": phase("val", labels=True)},
    }
    predict = {
        "model_path": str(directory / "checkpoints" / "best_checkpoint.pytorch"),
        "model": model,
        "predictor": {"name": "StandardPredictor", "patch_halo": [1, 1, 1]},
        "loaders": common | {"output_dir": str(directory / "predictions"), "test": phase("test", labels=False)},
    }
    for name, config in (("train", train), ("predict", predict)):
        (directory / f"{name}.yml").write_text(yaml.safe_dump(config, sort_keys=False))


class Steps:
    """The steps, in their order; each raises where it fails."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.versions: dict[str, str] = {}

    def active(self) -> None:
        found = json.loads(self._run("p3d-regression", "doctor", "--json").stdout)
        self.versions = found["versions"]
        assert found["active"], found["reason"]

    def check(self) -> None:
        self._run("p3d-regression", "check", "--select", "P3D1,P3D2", self.directory / "train.yml")

    def train(self) -> None:
        log = self._run("train3dunet", "--config", self.directory / "train.yml")
        assert "P3DRegression" in log.stdout + log.stderr

    def predict(self) -> None:
        self._run("predict3dunet", "--config", self.directory / "predict.yml")
        (written,) = (self.directory / "predictions").glob("*.h5")
        with h5py.File(written) as file:
            values = file["predictions"][()]
        assert np.isfinite(values).all()
        assert values.mean() > 100, "the checkpoint's target scaling was not applied"

    def evaluate(self) -> None:
        # 1: a guess without a network is better, as it may be after six iterations
        found = self._run("p3d-regression", "evaluate", self.directory / "predict.yml", "--json", also=1)
        assert "R2" in json.loads(found.stdout)["pooled"]

    def export(self) -> None:
        source, target = self.directory / "checkpoints" / "best_checkpoint.pytorch", self.directory / "plain.pytorch"
        config = self.directory / "train.yml"  # which pytorch-3dunet before 1.7 does not copy
        self._run("p3d-regression", "export", source, target, "--config", config)
        assert target.exists()

    def _run(self, name: str, *arguments: object, also: int = 0) -> subprocess.CompletedProcess[str]:
        # an older pytorch-3dunet may be in a directory of its own on PYTHONPATH, with scripts in its bin
        path = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])
        script = shutil.which(name, path=path)
        assert script, f"{name} is not installed"
        command = [script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})
        assert done.returncode in (0, also), (
            f"{name} ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"
        )
        return done


def run() -> dict[str, Any]:
    """The row of this environment: its versions, and for each step ``ok`` or ``failed``."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        volumes(directory)
        configs(directory)
        steps = Steps(directory)
        each: list[Callable[[], None]] = [
            steps.active,
            steps.check,
            steps.train,
            steps.predict,
            steps.evaluate,
            steps.export,
        ]
        for step in each:
            try:
                step()
                found[step.__name__] = "ok"
            except (AssertionError, ValueError) as error:
                print(f"{step.__name__}: {error}", file=sys.stderr)
                found[step.__name__] = "failed"
    return {"platform": platform.system(), **steps.versions, "steps": found}


def add(row: dict[str, Any], path: Path) -> None:
    """Put a row in the place of an older one of the same versions."""
    rows = json.loads(path.read_text()) if path.exists() else []
    same = ("platform", "python", "torch", "pytorch3dunet")
    rows = [other for other in rows if any(other.get(key) != row.get(key) for key in same)]
    rows = sorted([*rows, row], key=lambda other: [str(other.get(key)) for key in ("pytorch3dunet", "python", "torch")])
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, help="JSON file of all rows.")
    parser.add_argument("--commit", help="Of pytorch-3dunet, where it is not a release.")
    asked = parser.parse_args()
    made = run()
    if asked.commit:
        made["pytorch3dunet"] += f" ({asked.commit})"
    print(json.dumps(made, indent=1))
    if asked.add:
        add(made, asked.add)
    sys.exit(any(result != "ok" for result in made["steps"].values()))
