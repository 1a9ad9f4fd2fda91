"""The time and memory in which `p3d-regression check` reads labels, against a bare h5py loop over the same chunks.

    python benchmarks/label_scan.py [--megabytes 512 2048] [--repeats 3]

For each size, a gzip-compressed label volume is written once. Both readers are run in turn, each in its own
interpreter, and the ratio is taken pair by pair. Prints the median ratio of wall time, and the peak memory of each
beyond that of its imports.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CHUNK = (16, 128, 128)
PLANE = 1024


def write_volume(path: Path, megabytes: int) -> None:
    """Distances to an undulating surface, as float32: they compress like real labels."""
    depth = megabytes * 2**20 // (4 * PLANE * PLANE)
    y, x = np.mgrid[0:PLANE, 0:PLANE].astype(np.float32)
    noise = np.random.default_rng(0).normal(scale=0.05, size=(CHUNK[0], PLANE, PLANE)).astype(np.float32)
    with h5py.File(path, "w") as file:
        label = file.create_dataset("label", (depth, PLANE, PLANE), np.float32, chunks=CHUNK, compression="gzip")
        raw = file.create_dataset("raw", (depth, PLANE, PLANE), np.uint8, chunks=CHUNK, compression="gzip")
        for z in range(0, depth, CHUNK[0]):
            planes = np.arange(z, min(z + CHUNK[0], depth), dtype=np.float32)[:, None, None]
            surface = 200 * np.sin(x / 90) * np.cos(y / 70) + planes - depth / 2
            label[z : z + len(planes)] = surface + noise[: len(planes)]
            raw[z : z + len(planes)] = 0


def loaders(path: Path) -> dict[str, Any]:
    patch = {"name": "SliceBuilder", "patch_shape": [64, 128, 128], "stride_shape": [32, 64, 64]}
    transformer = {"raw": [], "label": [{"name": "ToTensor", "expand_dims": True}]}
    phase = {"file_paths": [str(path)], "slice_builder": patch, "transformer": transformer}
    return {"dataset": "StandardHDF5Dataset", "train": phase}


def scan(path: Path) -> float:
    """Read through the dataset class of pytorch-3dunet and compute the smallest loss that a Sigmoid can reach."""
    from p3d_regression.interval import UNIT
    from p3d_regression.labels.floor import LossLimit, squared
    from p3d_regression.labels.scan import Statistics
    from p3d_regression.labels.scan import scan as scan_labels
    from p3d_regression.upstream.datasets import label_volumes

    found = Statistics()
    scan_labels(label_volumes(loaders(path), "train"), [LossLimit(squared(), [UNIT])], found, lambda voxels: None)
    return found.channels[0].mean


def bare(path: Path) -> float:
    """Read every chunk once and do nothing with it."""
    total = 0.0
    with h5py.File(path) as file:
        label = file["label"]
        for chunk in label.iter_chunks():
            total += float(label[chunk][0, 0, 0])
    return total


def run(what: str, path: Path) -> None:
    """Print the time, and the memory beyond the imports, of this interpreter."""
    import pytorch3dunet.train  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    {"scan": scan, "bare": bare}[what](path)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "megabytes": memory / 1024}))


def measure(what: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--run", what, str(path)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(directory: Path, megabytes: int, repeats: int) -> None:
    path = directory / f"{megabytes}.h5"
    write_volume(path, megabytes)
    stored = path.stat().st_size / 2**20
    measure("bare", path)  # into the file cache
    pairs = []
    for index in range(repeats):
        sides = ("scan", "bare") if index % 2 else ("bare", "scan")
        pairs.append({side: measure(side, path) for side in sides})
    ratio = statistics.median(pair["scan"]["seconds"] / pair["bare"]["seconds"] for pair in pairs)
    memory = {side: max(pair[side]["megabytes"] for pair in pairs) for side in ("scan", "bare")}
    seconds = statistics.median(pair["bare"]["seconds"] for pair in pairs)
    print(
        f"{megabytes} MB of labels ({stored:.0f} MB gzip): {ratio:.2f} times a bare loop of {seconds:.1f} s; "
        f"peak memory beyond imports {memory['scan']:.0f} MB (bare loop {memory['bare']:.0f} MB)",
        flush=True,
    )
    path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run[0], Path(arguments.run[1]))
        return
    with tempfile.TemporaryDirectory() as directory:
        for megabytes in arguments.megabytes:
            compare(Path(directory), megabytes, arguments.repeats)


if __name__ == "__main__":
    main()
