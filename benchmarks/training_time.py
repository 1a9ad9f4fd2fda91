"""The cost of this project's losses, metrics and monitoring in a training, against plain pytorch-3dunet.

    python benchmarks/training_time.py [--pairs N]

Runs two trainers of pytorch-3dunet on the same volumes, in alternating order: one with a config that does not use the
plugin, with MSELoss and MSE of pytorch-3dunet, one with losses and metrics of the plugin. The ratio is taken pair by
pair. Prints the median ratio of wall time, with the quartiles, of an epoch of training without validation and of a
validation, TensorBoard images included. Runs on a GPU if there is one.
"""

import argparse
import contextlib
import copy
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from pytorch3dunet.unet3d.trainer import create_trainer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PATCH = [16, 64, 64] if DEVICE == "cpu" else [64, 128, 128]
FEATURES = [16, 32]
PATCHES = 3

#: Name -> changes to the plain config.
VARIANTS: dict[str, dict[str, Any]] = {
    "final_activation: none": {},
    "MeanSquaredError": {"eval_metric": {"name": "MeanSquaredError"}},
    "HuberLoss, R2Score": {"loss": {"name": "HuberLoss"}, "eval_metric": {"name": "R2Score"}},
    "ignore_index: .nan, R2Score": {
        "loss": {"name": "MSELoss", "ignore_index": float("nan")},
        "eval_metric": {"name": "R2Score"},
    },
}


def config(directory: Path, changes: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    def loader(name: str) -> dict[str, Any]:
        return {
            "file_paths": [str(directory / f"{name}.h5")],
            "slice_builder": {"name": "SliceBuilder", "patch_shape": PATCH, "stride_shape": PATCH},
            "transformer": {
                "raw": [{"name": "ToTensor", "expand_dims": True}],
                "label": [{"name": "ToTensor", "expand_dims": True}],
            },
        }

    plain = {
        "device": DEVICE,
        "model": {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": FEATURES, **model},
        "loss": {"name": "MSELoss"},
        "eval_metric": {"name": "MSE"},
        "optimizer": {"learning_rate": 0.0002},
        "trainer": {
            "checkpoint_dir": str(directory / "checkpoints"),
            "eval_score_higher_is_better": changes.get("eval_metric", {}).get("name") == "R2Score",
            "max_num_epochs": 1,
            "max_num_iterations": 10**9,
            "validate_after_iters": 10**9,
            "log_after_iters": 10**9,
        },
        "loaders": {"num_workers": 0, "batch_size": 1, "train": loader("train"), "val": loader("val")},
    }
    return copy.deepcopy({**plain, **changes})


def write_volumes(directory: Path) -> None:
    shape = (PATCH[0] * PATCHES, *PATCH[1:])
    for seed, name in enumerate(("train", "val")):
        values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file["raw"], file["label"] = values, 0.5 * values + 3


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(plugin: Callable[[], Any], plain: Callable[[], Any], count: int) -> str:
    ratios = []
    for index in range(count + 3):
        order = (plugin, plain) if index % 2 else (plain, plugin)
        times = {run: seconds(run) for run in order}
        ratios.append(times[plugin] / times[plain])
    low, median, high = statistics.quantiles(ratios[3:], n=4)  # the first pairs are warm-up
    return f"{median:.3f} ({low:.3f} .. {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    count = parser.parse_args().pairs
    logging.disable(logging.WARNING)
    print(f"{count} pairs on {DEVICE}, {torch.get_num_threads()} threads, median ratio of wall time (quartiles)")
    print(f"{'':<32} {'training':<24} validation")
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(open(os.devnull, "w")):  # noqa: PTH123
        directory = Path(name)
        write_volumes(directory)
        plain = create_trainer(config(directory, {}, {"is_segmentation": False}))
        for title, changes in VARIANTS.items():
            plugin = create_trainer(config(directory, changes, {"final_activation": "none"}))
            for trainer in (plain, plugin):
                trainer.model.train()
            training = compare(plugin.train, plain.train, count)
            for trainer in (plain, plugin):
                trainer.model.eval()
            validation = compare(plugin.validate, plain.validate, count)
            print(f"{title:<32} {training:<24} {validation}", flush=True)


if __name__ == "__main__":
    main()
