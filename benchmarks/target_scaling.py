"""The iterations that target_scaling: standardize saves, in trainings with train3dunet on a brain MRI.

    python benchmarks/target_scaling.py run     # 12 trainings, ten minutes on two cores; writes target_scaling.json
    python benchmarks/target_scaling.py draw    # draws docs/target_scaling.png, prints a table

The labels are the signed distance to white matter in mm (mean 12, standard deviation 13), the raw data the T1-weighted
MNI152 template, cropped to the brain and sampled every 2 mm. One hemisphere is for training, the other one, as a whole,
for validation, at every fifth iteration. The network is UNet3D [8, 16, 32] with Adam and patches of 32x64x64. The
configs differ in target_scaling, the learning rate and the seed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from brain import hemispheres

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "target_scaling.json"
PICTURE = HERE.parent / "docs" / "target_scaling.png"

RATES = (2e-4, 1e-3)
SEEDS = (0, 1, 2)
VARIANTS: dict[str, dict[str, Any]] = {"plain": {}, "standardize": {"target_scaling": "standardize"}}
END = 125

#: One core each. malloc keeps its memory: to return it at every step takes a quarter of the time.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


def config(directory: Path, data: Path, variant: str, rate: float, seed: int) -> dict[str, Any]:
    def loader(name: str, patch: list[int], stride: list[int]) -> dict[str, Any]:
        return {
            "file_paths": [str(data / f"{name}.h5")],
            "slice_builder": {"name": "SliceBuilder", "patch_shape": patch, "stride_shape": stride},
            "transformer": {
                "raw": [{"name": "Standardize"}, {"name": "ToTensor", "expand_dims": True}],
                "label": [{"name": "ToTensor", "expand_dims": True}],
            },
        }

    with h5py.File(data / "val.h5") as file:
        whole = list(file["label"].shape)
    unet = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [8, 16, 32], "num_groups": 4}
    return {
        "manual_seed": seed,
        "device": "cpu",
        "model": {**unet, "final_activation": "none", **VARIANTS[variant]},
        "loss": {"name": "MSELoss"},
        "eval_metric": {"name": "MSE"},
        "optimizer": {"name": "Adam", "learning_rate": rate},
        "trainer": {
            "checkpoint_dir": str(directory / "checkpoints"),
            "eval_score_higher_is_better": False,
            "max_num_epochs": 10**6,
            "max_num_iterations": END,
            "validate_after_iters": 5,
            "log_after_iters": 10**9,
        },
        "loaders": {
            "num_workers": 0,
            "batch_size": 1,
            "raw_internal_path": "raw",
            "label_internal_path": "label",
            "global_normalization": True,
            "train": loader("train", [32, 64, 64], [3, 13, 13]),
            "val": loader("val", whole, whole),
        },
    }


def train(directory: Path, data: Path, variant: str, rate: float, seed: int) -> list[tuple[int, float]]:
    """Return (iteration, validation MSE in mm^2) pairs."""
    directory.mkdir()
    path = directory / "train.yml"
    path.write_text(yaml.safe_dump(config(directory, data, variant, rate, seed)))
    with (directory / "train.log").open("w") as log:
        subprocess.run(
            ["train3dunet", "--config", path],
            check=True,
            stdout=log,
            stderr=log,
            env={**os.environ, **ENVIRONMENT},
        )
    (events,) = directory.glob("checkpoints/logs/**/events*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars("val_eval_score_avg")]


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        halves = dict(zip(("train", "val"), hemispheres("brain"), strict=True))
        for phase, half in halves.items():
            half.write(data / f"{phase}.h5")
        jobs = list(product(RATES, SEEDS, VARIANTS))
        with ThreadPoolExecutor(max_workers=2) as pool:
            coming = [
                pool.submit(train, data / f"{i}", data, variant, rate, seed)
                for i, (rate, seed, variant) in enumerate(jobs)
            ]
            curves = []
            for (rate, seed, variant), future in zip(jobs, coming, strict=True):
                curves.append({"rate": rate, "seed": seed, "variant": variant, "curve": future.result()})
                print(f"{variant}, learning rate {rate:g}, seed {seed}: {curves[-1]['curve'][-1]}", flush=True)
    RESULTS.write_text(_one_curve_a_line({"constant": constant(halves), "curves": curves}))


def constant(halves: Any) -> float:
    """Validation MSE of a constant prediction, the mean of the training labels."""
    return float(np.mean((halves["val"].label - halves["train"].label.mean()) ** 2))


def _one_curve_a_line(results: dict[str, Any]) -> str:
    lines = [json.dumps({**c, "curve": [[n, float(f"{mse:.5g}")] for n, mse in c["curve"]]}) for c in results["curves"]]
    body = ",\n".join(f"  {line}" for line in lines)
    return f'{{\n"constant": {results["constant"]:.5g},\n"curves": [\n{body}\n]\n}}\n'


def reached(curve: list[tuple[int, float]], target: float) -> float:
    """The first iteration whose validation MSE is at most ``target``."""
    return next((step for step, mse in curve if mse <= target), float("inf"))


def at(curve: list[tuple[int, float]], iteration: int) -> float:
    """The validation MSE at ``iteration``, or at the last one before."""
    return [mse for step, mse in curve if step <= iteration][-1]


def draw() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = json.loads(RESULTS.read_text())
    curves = {(c["rate"], c["seed"], c["variant"]): c["curve"] for c in results["curves"]}
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    print(f"validation MSE in mm^2, median of {len(SEEDS)} seeds; a constant guess has {results['constant']:.1f}")
    print("learning rate  plain at 25 / 125  standardize at 25 / 125  reaches plain's 125 at (each seed)  ratio")
    for axis, rate in zip(figure.subplots(1, len(RATES), sharey=True), RATES, strict=True):
        medians = {
            (variant, n): statistics.median(at(curves[rate, seed, variant], n) for seed in SEEDS)
            for variant in VARIANTS
            for n in (25, END)
        }
        steps = [reached(curves[rate, s, "standardize"], at(curves[rate, s, "plain"], END)) for s in SEEDS]
        plain, scaled = ([f"{medians[variant, n]:.1f}" for n in (25, END)] for variant in VARIANTS)
        when = f"{statistics.median(steps):g} ({', '.join(f'{step:g}' for step in steps)})"
        print(
            f"{rate:<13g}  {' / '.join(plain):<17}  {' / '.join(scaled):<23}  {when:<34}  "
            f"{END / statistics.median(steps):.1f}"
        )
        for variant, colour in (("plain", "tab:gray"), ("standardize", "tab:blue")):
            name = "final_activation: none" + (", target_scaling: standardize" if variant != "plain" else "")
            for seed in SEEDS:
                x, y = zip(*curves[rate, seed, variant], strict=True)
                axis.plot(x, y, color=colour, linewidth=1.2, alpha=0.8, label=name if seed == SEEDS[0] else None)
        axis.axhline(results["constant"], color="black", linewidth=0.8, linestyle="--", label="a constant guess")
        axis.set(title=f"learning rate {rate:g}", xlabel="iteration", yscale="log", xlim=(0, END), ylim=(18, 370))
        axis.set_yticks([20, 50, 100, 200, 300], [20, 50, 100, 200, 300], minor=False)
        axis.set_yticks([], minor=True)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("validation MSE (mm$^2$)")
    figure.axes[0].legend(fontsize=8, loc="lower left")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "draw"))
    sys.exit({"run": run, "draw": draw}[parser.parse_args().what]())
