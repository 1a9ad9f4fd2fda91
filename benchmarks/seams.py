"""Steps at the borders of predicted patches, and errors, with and without blending, through pytorch-3dunet's commands.

    python benchmarks/seams.py [TASK ...] [--iterations N]

Trains on one volume and predicts another one: as pytorch-3dunet does it with patches side by side and with patches that
overlap by half, blended, blended with a halo, and as a whole. ``step`` is the mean absolute difference of the error
between neighbouring voxels on both sides of a patch border, divided by that elsewhere.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from intensity import TASKS, config_of

PATCH = [8, 64, 64]
HALF = [4, 32, 32]
HALO = [2, 8, 8]
SMALL = [1, 4, 4]


def run(command: str, path: Path, config: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(config))
    environment = {**os.environ, "P3D_REGRESSION_CHECKS": "off"}
    script = Path(sys.executable).with_name(command)
    result = subprocess.run([script, "--config", path], capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(result.stdout[-2000:] + result.stderr[-2000:])


def step(error: np.ndarray, places: tuple[int, ...], axis: int) -> tuple[float, float]:
    """Mean absolute difference of neighbours at borders, and elsewhere."""
    jumps = np.abs(np.diff(error, axis=axis)).mean(tuple(i for i in range(3) if i != axis))
    at = np.zeros(len(jumps), bool)
    at[[n - 1 for n in places if 0 < n < error.shape[axis]]] = True
    return float(jumps[at].mean()), float(jumps[~at].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=["level", "counts", "distance"])
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--rate", type=float, default=3e-3)
    options = parser.parse_args()
    options.patch, options.f_maps = PATCH, [8, 16]
    for task in options.tasks:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            volumes = {phase: TASKS[task](number) for number, phase in enumerate(("train", "val"))}
            for phase, (raw, label) in volumes.items():
                with h5py.File(directory / f"{phase}.h5", "w") as file:
                    file["raw"], file["label"] = raw.astype(np.float32), label.astype(np.float32)
            scaling = "standardize" if task == "distance" else "residual"
            train = config_of(directory, {"target_scaling": scaling}, volumes["train"][0], 0, options)
            run("train3dunet", directory / "train.yml", train)
            truth = volumes["val"][1]
            whole = [n // 2 * 2 for n in truth.shape]
            small = [p - 2 * h for p, h in zip(PATCH, SMALL, strict=True)]
            inner = [p - 2 * h for p, h in zip(PATCH, HALO, strict=True)]
            ways: dict[str, tuple[list[int], list[int], list[int], dict[str, str]]] = {
                "side by side": (PATCH, PATCH, [0, 0, 0], {}),
                "overlapping, the last one stays": (PATCH, HALF, [0, 0, 0], {}),
                "blend: mean": (PATCH, HALF, [0, 0, 0], {"blend": "mean"}),
                "blend: gaussian": (PATCH, HALF, [0, 0, 0], {"blend": "gaussian"}),
                "blend: gaussian, halo": (inner, [max(1, n // 2) for n in inner], HALO, {"blend": "gaussian"}),
                "blend: gaussian, small halo": (small, [max(1, n // 2) for n in small], SMALL, {"blend": "gaussian"}),
                "whole": (whole, whole, [0, 0, 0], {}),
            }
            print(f"{task}: variance of the labels {truth.var():.4g}", flush=True)
            for number, (way, (patch, stride, halo, predictor)) in enumerate(ways.items()):
                slices = {"name": "SliceBuilder", "patch_shape": patch, "stride_shape": stride, "halo_shape": halo}
                transformer = {"raw": train["loaders"]["val"]["transformer"]["raw"]}
                test = {"file_paths": [str(directory / "val.h5")], "slice_builder": slices, "transformer": transformer}
                config = {
                    "model_path": str(directory / "checkpoints" / "last_checkpoint.pytorch"),
                    "model": {"name": "UNet3D"},
                    "device": "cpu",
                    "predictor": {"name": "StandardPredictor", **predictor},
                    "loaders": {
                        "output_dir": str(directory / str(number)),
                        "num_workers": 0,
                        "batch_size": 1,
                        "test": test | {"slice_builder": slices | {"skip_shape_check": True}},
                    },
                }
                run("predict3dunet", directory / "predict.yml", config)
                with h5py.File(directory / str(number) / "val_predictions.h5") as file:
                    error = file["predictions"][0].astype(np.float64) - truth
                parts = [
                    step(error, tuple(range(0, n, p)), a)
                    for a, (n, p) in enumerate(zip(truth.shape, PATCH, strict=True))
                ]
                ratio = np.mean([at for at, _ in parts]) / np.mean([other for _, other in parts])
                print(f"  {way:<32} MSE {np.mean(error**2):8.4g}  step {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
