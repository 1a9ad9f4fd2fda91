"""The config of ``p3d-regression init`` against the hand-written example of its task, after the same time.

    python benchmarks/init.py [TASK ...] [--seconds N]

The tasks are those of ``intensity.py``, each with a training volume and another one that is validated on. The example
gets the paths, the patch shape, and the mean and standard deviation of the raw volume, as its first lines ask for; both
get the same ``validate_after_iters``. The score is the best R2 within the time, from ``metrics.csv``, without imports.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from intensity import TASKS

ROOT = Path(__file__).parents[1]

#: The example of each task.
EXAMPLES = {"level": "denoise", "counts": "counts", "hounsfield": "counts"}

#: As large as these volumes allow.
PATCH = [32, 64, 64]


def example(name: str, directory: Path, raw: np.ndarray) -> dict[str, Any]:
    """An example with what a user enters."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "examples" / f"{name}.yml").read_text())
    config["device"] = "cpu"
    for phase in ("train", "val"):
        section = config["loaders"][phase]
        section["file_paths"] = [str(directory / f"{phase}.h5")]
        stride = [p // 2 for p in PATCH] if phase == "train" else PATCH
        section["slice_builder"] |= {"patch_shape": PATCH, "stride_shape": stride}
        section["transformer"]["raw"][0] |= {"mean": float(raw.mean()), "std": float(raw.std())}
    config["loaders"]["num_workers"] = 1
    return config


def from_init(directory: Path) -> dict[str, Any]:
    """The config that is written for the volumes."""
    command = [sys.executable, "-m", "p3d_regression", "init", "--yes", "--out", directory / "init"]
    # the second of two volumes is validated on
    files = [directory / f"{phase}.h5" for phase in ("train", "val")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    config: dict[str, Any] = yaml.safe_load((directory / "init" / "train.yml").read_text())
    found = config["loaders"]["val"]["file_paths"], config["loaders"]["train"]["file_paths"]
    if found != ([str(directory / "val.h5")], [str(directory / "train.h5")]):
        raise SystemExit(f"init has divided the volumes in another way: {found}")
    return config


def best_score(config: dict[str, Any], directory: Path, seconds: float) -> tuple[float, int]:
    """Train for some time; returns the best score, and the iterations."""
    config["trainer"] |= {"checkpoint_dir": str(directory), "validate_after_iters": 10, "log_after_iters": 1000}
    directory.mkdir()
    path = directory / "train.yml"
    path.write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).with_name("train3dunet"), "--config", path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        rows: list[dict[str, str]] = []
        while process.poll() is None and not (rows and float(rows[-1]["seconds"]) > seconds):
            time.sleep(1)
            if (directory / "metrics.csv").exists():
                with (directory / "metrics.csv").open() as file:
                    rows = list(csv.DictReader(file))
        process.kill()
    within = [row for row in rows if float(row["seconds"]) <= seconds]
    return max(float(row["R2Score"]) for row in within), int(within[-1]["iteration"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=[], help=f"of {', '.join(EXAMPLES)}; all by default")
    parser.add_argument("--seconds", type=float, default=90, help="of training, for each config")
    options = parser.parse_args()
    for task in options.tasks or EXAMPLES:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            volumes = {phase: TASKS[task](number) for number, phase in enumerate(("train", "val"))}
            for phase, (raw, label) in volumes.items():
                with h5py.File(directory / f"{phase}.h5", "w") as file:
                    file["raw"], file["label"] = raw.astype(np.float32), label.astype(np.float32)
            configs = {
                "init": from_init(directory),
                "example": example(EXAMPLES[task], directory, volumes["train"][0]),
            }
            found = {
                name: best_score(config, directory / f"run-{name}", options.seconds) for name, config in configs.items()
            }
        print(json.dumps({"task": task, **{name: {"R2": r, "iterations": n} for name, (r, n) in found.items()}}))


if __name__ == "__main__":
    main()
