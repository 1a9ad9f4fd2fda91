"""Which configs learn absolute intensities: R2 on another volume, predicted patch by patch, through ``train3dunet``.

    python benchmarks/intensity.py [TASK ...] [--seeds N] [--iterations N] [--patch Z Y X]

The tasks, each with a training volume and another one of the same kind:

- ``level``: noise is to be removed from a volume whose level falls along Z;
- ``brain``: noise (standard deviation 25) is to be removed from the T1 template of a brain;
- ``counts``: counts proportional to the raw value, with exposures that vary;
- ``hounsfield``: density from Hounsfield units, by another line in soft tissue than in bone;
- ``distance``: the distance to its white matter, which does not depend on the brightness of a patch.

Each config is trained with Adam and MSELoss. ``raw`` and ``line`` are the raw volume itself and
the best line through it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from scipy.ndimage import gaussian_filter

from brain import hemispheres

SHAPE = (32, 96, 96)

#: What is compared: the name, and lines of the section ``model``.
CONFIGS: dict[str, dict[str, Any]] = {
    "gcr": {"target_scaling": "standardize"},
    "cgr": {"layer_order": "cgr", "target_scaling": "standardize"},
    "cr": {"layer_order": "cr", "target_scaling": "standardize"},
    "gcr patch": {"target_scaling": "patch"},
    "gcr residual": {"target_scaling": "residual"},
    "cr residual": {"layer_order": "cr", "target_scaling": "residual"},
}

Pair = tuple[np.ndarray, np.ndarray]


def texture(seed: int, sigma: float = 2.0) -> np.ndarray:
    """Smooth random values with a standard deviation of 1."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), sigma)
    return (values - values.mean()) / values.std()


def level(seed: int) -> Pair:
    label = np.linspace(1000, 200, SHAPE[0])[:, None, None] * (1 + 0.1 * texture(seed))
    return label + np.random.default_rng(seed + 100).normal(size=SHAPE) * 60, label


def brain(seed: int) -> Pair:
    label = hemispheres("tissue")[seed % 2].raw.astype(np.float64)
    label = 255 * label / label.max()
    return label + np.random.default_rng(seed).normal(size=label.shape) * 25, label


def counts(seed: int) -> Pair:
    # both exposures in the training volume, and one between them in the other
    exposure = np.where(np.arange(SHAPE[0]) < SHAPE[0] // 2, 0.5, 2.0)[:, None, None] if seed == 0 else 1.0
    true = exposure * 20 * np.exp(0.6 * texture(seed))
    raw = 10 * np.random.default_rng(seed + 100).poisson(true)
    return raw.astype(np.float64), true


def hounsfield(seed: int) -> Pair:
    bone = texture(seed, 4.0) > 1.0
    true = np.where(bone, 700 + 200 * texture(seed + 1), 30 + 40 * texture(seed + 2))
    true += np.linspace(0, 150, SHAPE[0])[:, None, None] * (1 if seed == 0 else -1)
    density = np.where(true > 100, 1.017 + 0.592e-3 * true, 1.0 + 0.97e-3 * true)
    return true + np.random.default_rng(seed + 100).normal(size=SHAPE) * 30, density


def distance(seed: int) -> Pair:
    half = hemispheres("tissue")[seed % 2]
    return half.raw.astype(np.float64), half.label.astype(np.float64)


TASKS: dict[str, Callable[[int], Pair]] = {
    "level": level,
    "brain": brain,
    "counts": counts,
    "hounsfield": hounsfield,
    "distance": distance,
}


def config_of(directory: Path, model: dict[str, Any], raw: np.ndarray, seed: int, options: Any) -> dict[str, Any]:
    """A training config for the volumes of a directory."""
    patch = [min(p, n) for p, n in zip(options.patch, raw.shape, strict=True)]
    fixed = {"name": "Standardize", "mean": float(raw.mean()), "std": float(raw.std())}
    transformer = {
        "raw": [fixed, {"name": "ToTensor", "expand_dims": True}],
        "label": [{"name": "ToTensor", "expand_dims": True}],
    }
    slices = {"name": "SliceBuilder", "patch_shape": patch, "stride_shape": [max(1, p // 2) for p in patch]}
    phases = {
        name: {"file_paths": [str(directory / f"{name}.h5")], "slice_builder": slices, "transformer": transformer}
        for name in ("train", "val")
    }
    return {
        "manual_seed": seed,
        "device": "cpu",
        "model": {
            "name": "UNet3D",
            "in_channels": 1,
            "out_channels": 1,
            "f_maps": options.f_maps,
            "num_groups": 4,
            "final_activation": "none",
            **model,
        },
        "loss": {"name": "MSELoss"},
        "eval_metric": {"name": "MSE"},
        "optimizer": {"name": "Adam", "learning_rate": options.rate},
        "trainer": {
            "checkpoint_dir": str(directory / "checkpoints"),
            "max_num_iterations": options.iterations,
            "max_num_epochs": 10000,
            "validate_after_iters": options.iterations,
            "log_after_iters": options.iterations,
        },
        "loaders": {"num_workers": 0, "batch_size": 1, **phases},
    }


def trained(task: str, model: dict[str, Any], seed: int, options: Any) -> float:
    """Train a config and return R2 of the other volume, predicted patch by patch."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        volumes = {phase: TASKS[task](number) for number, phase in enumerate(("train", "val"))}
        for phase, (raw, label) in volumes.items():
            with h5py.File(directory / f"{phase}.h5", "w") as file:
                file["raw"], file["label"] = raw.astype(np.float32), label.astype(np.float32)
        config = config_of(directory, model, volumes["train"][0], seed, options)
        path = directory / "train.yml"
        path.write_text(yaml.safe_dump(config))
        command = [Path(sys.executable).with_name("train3dunet"), "--config", path]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "P3D_REGRESSION_CHECKS": "off"}
        # large tensors come and go in every layer; glibc would give their memory back each time
        environment |= dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if run.returncode:
            raise SystemExit(f"{task} {model}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
        script = [sys.executable, __file__, "--predict", path]
        subprocess.run(script, capture_output=True, check=True, env=environment)
        return r2(np.load(directory / "prediction.npy"), volumes["val"][1])


def predict(path: Path) -> None:
    """Predict the validation volume of a config, patch by patch."""
    import torch
    from pytorch3dunet.unet3d.model import get_model
    from pytorch3dunet.unet3d.utils import load_checkpoint

    config = yaml.safe_load(path.read_text())
    model = get_model(config["model"])
    load_checkpoint(str(path.parent / "checkpoints" / "last_checkpoint.pytorch"), model)
    model.eval()
    step = config["loaders"]["val"]["transformer"]["raw"][0]
    with h5py.File(path.parent / "val.h5") as file:
        raw = (file["raw"][()] - step["mean"]) / step["std"]
    out, patch = np.zeros_like(raw), config["loaders"]["val"]["slice_builder"]["patch_shape"]
    starts = [[*range(0, n - p, p), n - p] for n, p in zip(raw.shape, patch, strict=True)]
    with torch.no_grad():
        for z in starts[0]:
            for y in starts[1]:
                for x in starts[2]:
                    place = tuple(slice(s, s + p) for s, p in zip((z, y, x), patch, strict=True))
                    out[place] = model(torch.from_numpy(raw[place])[None, None])[0, 0].numpy()
    np.save(path.parent / "prediction.npy", out)


def r2(found: np.ndarray, label: np.ndarray) -> float:
    return 1 - float(((found - label) ** 2).mean() / label.var())


def baselines(task: str) -> dict[str, float]:
    """R2 of the raw volume itself, and of the line that fits the training volume best; the variance of the labels."""
    (raw, label), (other, truth) = TASKS[task](0), TASKS[task](1)
    slope, intercept = np.polyfit(raw.ravel(), label.ravel(), 1)
    return {"raw": r2(other, truth), "line": r2(slope * other + intercept, truth), "variance": float(truth.var())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=list(TASKS))
    parser.add_argument("--configs", nargs="*", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--patch", type=int, nargs=3, default=[8, 64, 64])
    parser.add_argument("--f-maps", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        predict(options.predict)
        return
    found: dict[str, dict[str, list[float]]] = {}
    for task in options.tasks:
        print(f"{task}: " + ", ".join(f"{name} {value:.3f}" for name, value in baselines(task).items()), flush=True)
        jobs = [(name, seed) for name in options.configs for seed in range(options.seeds)]
        with ThreadPoolExecutor(options.jobs) as pool:
            scores = pool.map(lambda job, task=task: trained(task, CONFIGS[job[0]], job[1], options), jobs)
            for (name, _), score in zip(jobs, scores, strict=True):
                found.setdefault(task, {}).setdefault(name, []).append(score)
        for name, values in found[task].items():
            listed = ", ".join(f"{value:.3f}" for value in values)
            print(f"  {name:<14} median {statistics.median(values):.3f}  ({listed})", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": None}, "r2": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
