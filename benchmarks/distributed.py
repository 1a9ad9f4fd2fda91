"""The processor time of a training step: two processes under torchrun against one, with the same batch size in each.

    python benchmarks/distributed.py [--iterations N]

Each process has one thread. A step is counted from the second validation interval on, so that imports and the first
batch are not. Prints processor time per process and step, and wall time per patch, as ratios of two processes to one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.environments import Environment  # noqa: E402
from support.lab import training_config, write_config  # noqa: E402


def train(path: Path) -> None:
    """Train in this process; write the seconds per step beside the config."""
    import torch
    import yaml
    from pytorch3dunet.unet3d.config import TorchDevice
    from pytorch3dunet.unet3d.trainer import create_trainer

    from p3d_regression import group

    torch.set_num_threads(1)
    config = yaml.safe_load(path.read_text())
    config["device"] = TorchDevice(config["device"])
    trainer = create_trainer(config)
    times: list[tuple[float, float]] = []
    trainer.optimizer.register_step_post_hook(lambda *_: times.append((time.process_time(), time.perf_counter())))
    trainer.fit()
    # without the first steps, which allocate memory
    rest = times[5:]
    steps = len(rest) - 1
    found = [(end - start) / steps for start, end in zip(rest[0], rest[-1], strict=True)]
    path.with_suffix(f".{group.rank()}.json").write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        train(given.train)
        return
    environment = Environment.current().having(OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for phase, patches in (("train", 64), ("val", 1)):
            with h5py.File(directory / f"{phase}.h5", "w") as file:
                for key in ("raw", "label"):
                    file[key] = np.random.default_rng(0).normal(size=(16, 64, 64 * patches)).astype(np.float32)
        ratios = []
        for repeat in range(given.repeats):
            seconds = {}
            for processes in (1, 2) if repeat % 2 else (2, 1):
                part = directory / f"{repeat}-{processes}"
                part.mkdir()
                config = training_config(directory, {"name": "UNet3D", "final_activation": "none"})
                config["model"] |= {"f_maps": [16, 32]}
                config["trainer"] |= {"max_num_iterations": given.iterations, "validate_after_iters": 10**6}
                config["trainer"] |= {"checkpoint_dir": str(part / "checkpoints"), "max_num_epochs": 10**6}
                config["loaders"] |= {"batch_size": 1, "num_workers": 0}
                for phase in ("train", "val"):
                    slices = {"patch_shape": [16, 64, 64], "stride_shape": [16, 64, 64]}
                    config["loaders"][phase]["slice_builder"] |= slices
                command = [Path(__file__), "--train", write_config(part / "train.yml", config)]
                start = ["torchrun", "--standalone", "--nproc-per-node", processes] if processes > 1 else ["python"]
                done: subprocess.CompletedProcess[str] = environment.run(*start, *command)
                assert done.returncode == 0, done.stdout + done.stderr
                seconds[processes] = [json.loads(path.read_text()) for path in part.glob("train.*.json")]
            ((alone, wall),) = seconds[1]
            both = sum(processor for processor, _ in seconds[2]) / 2
            ratios.append((both / alone, 2 * wall / max(w for _, w in seconds[2])))
    print(f"{given.repeats} repeats, two processes against one, with batches of 1 patch in each")
    for what, column in zip(
        ("processor time per process and step", "patches per second"), zip(*ratios, strict=True), strict=True
    ):
        print(f"{what:<38}{', '.join(f'{ratio:.3f}' for ratio in sorted(column))}")


if __name__ == "__main__":
    main()
