"""What blending costs: processor time and peak memory of a prediction, with and without, at the same patches.

    python benchmarks/prediction_cost.py [--planes N ...] [--rounds N]

Each prediction is a process of its own: two threads, an untrained network with f_maps [8, 16] on patches of 32 x 64 x
64 voxels without overlap, with a halo of 4 x 8 x 8, through a volume of N x 512 x 512. ``peak`` is the memory beyond
imports.
"""

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

PATCH, HALO = [32, 64, 64], [4, 8, 8]


def write_volume(path: Path, planes: int) -> None:
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        raw = file.create_dataset("raw", (planes, 512, 512), "float32", chunks=(16, 64, 64), compression="gzip")
        for z in range(0, planes, 16):
            raw[z : z + 16] = np.cumsum(draw.normal(size=(16, 512, 512)), 2)


def predict(path: Path, out: Path, blend: str | None) -> dict[str, float]:
    """Predict in this process."""
    import torch
    from pytorch3dunet.datasets.utils import get_test_loaders
    from pytorch3dunet.predict import get_predictor
    from pytorch3dunet.unet3d.config import TorchDevice
    from pytorch3dunet.unet3d.model import get_model

    logging.disable(logging.INFO)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    raw = [{"name": "Standardize", "mean": 0, "std": 1}, {"name": "ToTensor", "expand_dims": True}]
    slices = {"name": "SliceBuilder", "patch_shape": PATCH, "stride_shape": PATCH, "halo_shape": HALO}
    test = {"file_paths": [str(path)], "slice_builder": slices, "transformer": {"raw": raw}}
    model = {"name": "UNet3D", "in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 4}
    config = {
        "device": TorchDevice.CPU,
        "model": {**model, "final_activation": "none"},
        "predictor": {"name": "StandardPredictor", **({"blend": blend} if blend else {})},
        "loaders": {"num_workers": 0, "batch_size": 1, "output_dir": str(out), "test": test},
    }
    network = get_model(config["model"])
    shares: list[float] = []
    forward = network.forward

    def timed(*args: object, **kwargs: object) -> object:
        begin = time.process_time()
        found = forward(*args, **kwargs)
        shares.append(time.process_time() - begin)
        return found

    network.forward = timed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    predictor = get_predictor(network, config)
    for loader in get_test_loaders(config):
        predictor(loader)
    spent = time.process_time() - begin
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": spent, "forward": sum(shares) / spent, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--predict", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        path, out, blend = options.predict
        print(json.dumps(predict(Path(path), Path(out), blend if blend != "plain" else None)))
        return
    for planes in options.planes:
        found: dict[str, list[dict[str, float]]] = {"plain": [], "gaussian": []}
        with tempfile.TemporaryDirectory() as name:
            write_volume(Path(name) / "volume.h5", planes)
            for _ in range(options.rounds):
                for blend, runs in found.items():
                    command = [sys.executable, __file__, "--predict", f"{name}/volume.h5", f"{name}/{blend}", blend]
                    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    runs.append(json.loads(printed.splitlines()[-1]))
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(found["plain"], found["gaussian"], strict=True)]
        print(f"{planes} planes: processor time {statistics.median(ratios):.3f} x plain")
        for blend, runs in found.items():
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            print(f"  {blend:<9} peak {middle['peak']:5.0f} MB, {middle['forward']:.1%} of the time in the network")


if __name__ == "__main__":
    main()
