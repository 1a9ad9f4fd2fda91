"""A Zarr volume of 42 GB, most of which was never written: trained on and predicted in part, by the commands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from p3d_regression.prediction.files import partial_path
from support.environments import Environment
from support.lab import training_config, write_config

SHAPE = (2048, 3200, 3200)
PATCH = [32, 64, 64]
MODEL = {"name": "UNet3D", "final_activation": "none", "f_maps": [4, 8]}

#: In MiB, of a process with torch.
MOST = 2048

MEASURED = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(json.dumps([code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024]))
"""


def run(environment: Environment, *command: object) -> tuple[str, int]:
    """What a command prints, and the most memory that it has used, in MiB."""
    done = environment.run("python", "-c", MEASURED, environment.script(str(command[0])), *command[1:])
    code, peak = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout, peak


def test_trains_and_predicts_a_part(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name in ("train", "val"):
        group = zarr.create_group(str(tmp_path / f"{name}.zarr"))
        raw = group.create_array("raw", shape=SHAPE, chunks=(64, 64, 64), dtype="u2")
        raw[:64, :128, :128] = draw.integers(0, 1000, (64, 128, 128)).astype("u2")
        label = group.create_array("label", shape=SHAPE, chunks=(64, 64, 64), dtype="f4")
        label[:64, :128, :128] = raw[:64, :128, :128] * 3.0
    assert np.prod(SHAPE) * 2 > 40e9
    config: dict[str, Any] = training_config(tmp_path, MODEL, iterations=8)
    loaders = config["loaders"]
    loaders |= {"dataset": "ZarrDataset", "num_workers": 0, "batch_size": 1}
    for phase in ("train", "val"):
        loaders[phase]["file_paths"] = [str(tmp_path / f"{phase}.zarr")]
        loaders[phase]["slice_builder"] |= {"patch_shape": PATCH, "stride_shape": [128, 128, 128]}
        loaders[phase]["transformer"]["raw"][0] |= {"mean": 0.0, "std": 100.0}
    config["trainer"] |= {"validate_after_iters": 4, "validate_iters": 1}
    environment = Environment.current()
    printed, peak = run(environment, "train3dunet", "--config", write_config(tmp_path / "train.yml", config))
    assert "Training iteration [8/8]" in printed
    assert peak < MOST
    test = {**loaders["val"], "file_paths": [str(tmp_path / "train.zarr")]}
    test["slice_builder"] = {
        "name": "SliceBuilder",
        "patch_shape": PATCH,
        "stride_shape": PATCH,
        "halo_shape": [2, 4, 4],
    }
    test["transformer"] = {"raw": test["transformer"]["raw"]}
    predicting = {
        "model_path": f"{config['trainer']['checkpoint_dir']}/last_checkpoint.pytorch",
        "model": config["model"],
        "device": "cpu",
        "predictor": {"output": "zarr"},
        "loaders": {
            "dataset": "ZarrDataset",
            "num_workers": 0,
            "batch_size": 1,
            "output_dir": str(tmp_path),
            "test": test,
        },
    }
    part = environment.having(P3D_REGRESSION_PART="1/4000")
    printed, peak = run(part, "predict3dunet", "--config", write_config(tmp_path / "predict.yml", predicting))
    assert "1 of 3136 parts in this process" in printed
    assert peak < MOST
    # the part is there, the rest is not; and nothing was written to the input
    arrays = partial_path(tmp_path / "train_predictions.zarr") / "arrays"
    found = zarr.open_array(str(arrays), path="predictions", mode="r")
    assert np.isfinite(found[0, :32, :512:7, :512:7]).all()
    assert np.isnan(found[0, 32:40, :512:7, :512:7]).all()
    assert sorted(path.name for path in (tmp_path / "train.zarr").iterdir()) == ["label", "raw", "zarr.json"]
