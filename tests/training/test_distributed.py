"""Two processes under torchrun are one training: that of one process with batches twice as large."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from p3d_regression.errors import ConfigError
from p3d_regression.metrics import merging
from p3d_regression.metrics.registry import registry
from p3d_regression.training import distributed
from support import together
from support.environments import Environment
from support.lab import training_config, write_config

#: Of labelled voxels in each training patch: the mean over processes is far from the mean over voxels.
SHARES = (0.9, 0.05, 0.4, 0.02, 0.6)

STANDARDIZE = {"final_activation": "none", "target_scaling": "standardize"}
NAN = {"ignore_index": float("nan")}

#: Changes of a config, by the name of the training.
CONFIGS: dict[str, dict[str, Any]] = {
    "mse": {"model": STANDARDIZE},
    "huber": {"model": STANDARDIZE, "loss": {"name": "HuberLoss", **NAN}, "eval_metric": {"name": "R2Score"}},
    "l1": {"model": {"final_activation": "none"}, "loss": {"name": "L1Loss"}, "eval_metric": {"name": "MSE"}},
    "ssim": {
        "model": {"final_activation": "none"},
        "loss": {"name": "SmoothL1Loss"},
        "eval_metric": {"name": "SSIM", "data_range": 4.0, "sigma": 0.5},
    },
    "plane": {"model": {"name": "UNet2D", **STANDARDIZE}, "eval_metric": {"name": "Pearson"}},
    "channels": {
        "model": {"out_channels": 2, "final_activation": ["none", "none"]},
        "loss": {"name": "channelwise", "channels": [{"name": "MSELoss"}, {"name": "L1Loss", "weight": 0.2}], **NAN},
        "eval_metric": {"name": "R2Score"},
        "label": "two",
    },
    "variance": {
        "model": {"out_channels": 2, "final_activation": ["none", "softplus"]},
        "loss": {"name": "GaussianNLLLoss", **NAN},
        "eval_metric": {"name": "SpearmanCorrCoef"},
        # its gradients are large, and so is what rounding does to them
        "optimizer": {"name": "SGD", "learning_rate": 0.0002},
    },
    "nan": {"model": {"final_activation": "none"}, "label": "bad"},
    "residual": {"model": {"final_activation": "none", "target_scaling": "residual"}, "eval_metric": {"name": "RMSE"}},
}


def write_volumes(directory: Path) -> None:
    """Five patches for training and three for validation, each with its own part of voxels that are labelled."""
    draw = np.random.default_rng(0)
    for name, shares in (("train", SHARES), ("val", (0.9, 0.0, 0.03))):
        raw = draw.normal(size=(4, 64, 64 * len(shares))).astype(np.float32)
        label = 3 * raw + draw.normal(size=raw.shape).astype(np.float32) + 5
        # each patch has labels of its own size, so that averages of averages are wrong
        label *= np.repeat(np.linspace(0.5, 2.0, len(shares)), 64).astype(np.float32)
        masked = label.copy()
        masked[draw.random(raw.shape) >= np.repeat(shares, 64)] = np.nan
        bad = label.copy()
        bad[1, 30, 70] = np.nan  # in one patch
        with h5py.File(directory / f"{name}.h5", "w") as file:
            file["raw"], file["label"], file["masked"], file["bad"] = raw, label, masked, bad
            file["two"] = np.stack([label, masked])


def config_of(directory: Path, name: str, batch_size: int, checkpoints: Path) -> dict[str, Any]:
    change = dict(CONFIGS[name])
    config = training_config(directory, {"name": "UNet3D", **change.pop("model")}, iterations=4)
    # of 5 patches in batches of 2: the last one of an epoch is not full
    config["trainer"] |= {"validate_after_iters": 2, "log_after_iters": 2, "checkpoint_dir": str(checkpoints)}
    del config["trainer"]["eval_score_higher_is_better"]  # that of the metric
    config["optimizer"] = {"name": "SGD", "learning_rate": 0.002}
    masked = "masked" if "ignore_index" in change.get("loss", {}) else "label"
    loaders = config["loaders"]
    loaders |= {"batch_size": batch_size, "label_internal_path": change.pop("label", masked)}
    for phase in ("train", "val"):
        loaders[phase]["slice_builder"]["stride_shape"] = loaders[phase]["slice_builder"]["patch_shape"]
        loaders[phase]["transformer"]["raw"][0] |= {"mean": 0.0, "std": 1.0}
        if loaders["label_internal_path"] == "two":
            loaders[phase]["transformer"]["label"][0]["expand_dims"] = False
    return {**config, **change}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings by two processes with batches of 1, and by one with batches of 2."""
    directory = tmp_path_factory.mktemp("together")
    write_volumes(directory)
    for name in CONFIGS:
        for part, size in (("two", 1), ("one", 2)):
            (directory / part).mkdir(exist_ok=True)
            config = config_of(directory, name, size, directory / part / name)
            write_config(directory / part / f"{name}.yml", config)
    write_resumed(directory)
    run_on_two_machines(directory / "two")
    (directory / "one" / "nan.yml").unlink()
    together.main(directory / "one")
    return directory


def write_resumed(directory: Path) -> None:
    """The training "mse" in two halves, of which the first one ends in the middle of an epoch."""
    config = config_of(directory, "mse", 1, directory / "two" / "half")
    config["trainer"]["max_num_iterations"] = 2
    write_config(directory / "two" / "mse-half.yml", config)
    config["trainer"] |= {"max_num_iterations": 4, "checkpoint_dir": str(directory / "two" / "rest")}
    config["trainer"]["resume"] = str(directory / "two" / "half" / "last_checkpoint.pytorch")
    write_config(directory / "two" / "mse-rest.yml", config)


def run_on_two_machines(directory: Path) -> None:
    """One process by each of two torchruns, which meet as on a cluster."""
    quiet = Environment.current().having(OMP_NUM_THREADS="1", P3D_REGRESSION_TIMEOUT_MINUTES="1.2")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    options = ["--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    command = ["torchrun", *options, "--rdzv-id", "test", Path(together.__file__), directory]
    other = quiet.start(*command, output=directory / "other.log")
    try:
        done = quiet.run(*command)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        assert other.wait(60) == 0, (directory / "other.log").read_text()
    finally:
        other.kill()


def run(processes: str, directory: Path) -> None:
    quiet = Environment.current().having(OMP_NUM_THREADS="1", P3D_REGRESSION_TIMEOUT_MINUTES="1.2")
    script = Path(together.__file__)
    done = quiet.run("torchrun", "--standalone", "--nproc-per-node", processes, script, directory)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def test_one_process_under_torchrun_changes_nothing(trained: Path, tmp_path: Path) -> None:
    for name in ("huber", "l1"):
        write_config(tmp_path / f"{name}.yml", config_of(trained, name, 2, tmp_path / name))
    run("1", tmp_path)
    for name in ("huber", "l1"):
        alone = seen(trained, "one", name)
        for key, values in json.loads((tmp_path / f"{name}.0.json").read_text()).items():
            assert (alone[key] == values).all(), (name, key)


def test_a_training_of_two_processes_that_was_interrupted(trained: Path) -> None:
    whole, rest = (np.array(seen(trained, "two", name)["weights"]) for name in ("mse", "mse-rest"))
    half = np.array(seen(trained, "two", "mse-half")["weights"])
    np.testing.assert_allclose(rest, whole, atol=1e-6)
    assert np.abs(half - whole).max() > 1e-3


def test_a_process_that_is_killed(trained: Path, tmp_path: Path) -> None:
    config = config_of(trained, "mse", 1, tmp_path / "checkpoints")
    config["trainer"] |= {"max_num_iterations": 24, "validate_after_iters": 6}
    environment = Environment.current()
    script = environment.script("train3dunet")
    options = ["--standalone", "--nproc-per-node", 2, "--max-restarts", 1, script]
    command = ["torchrun", *options, "--config", write_config(tmp_path / "train.yml", config)]
    started = environment.having(OMP_NUM_THREADS="1").start(*command, output=tmp_path / "log")
    last = tmp_path / "checkpoints" / "last_checkpoint.pytorch"
    try:
        end = time.monotonic() + 60
        while not last.exists():
            assert started.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        assert started.wait(100) == 0, (tmp_path / "log").read_text()
    finally:
        started.kill()
    log = (tmp_path / "log").read_text()
    assert f"start 2 of this training: it goes on after {last}" in log
    assert log.count("Training iteration [6/24]") == 1
    assert torch.load(last, weights_only=True)["num_iterations"] == 24
    assert len([*(tmp_path / "checkpoints" / "logs").iterdir()]) == 2


def test_pytorch_3dunet_alone_makes_a_training_of_each_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    lines: list[str] = []
    monkeypatch.setattr(distributed, "console", lambda: SimpleNamespace(warning=lines.append))
    distributed.warn_of_many({"trainer": {"checkpoint_dir": "/data/run"}, "model": {"name": "UNet3D"}})
    assert "makes 4 separate trainings of it, which all write to /data/run" in lines[0]
    monkeypatch.setenv("WORLD_SIZE", "1")
    distributed.warn_of_many({})
    assert len(lines) == 1


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    joined, used = [], []
    monkeypatch.setattr(distributed.group, "join", joined.append)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="2 processes on this machine, which has 1 GPU"):
        distributed.join({"device": "cuda"})
    # a launcher has given it its own
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    distributed.join({"device": "cuda"})
    assert (joined, used) == (["cuda"], [0])


def seen(trained: Path, part: str, name: str, rank: int = 0) -> dict[str, np.ndarray]:
    found = json.loads((trained / part / f"{name}.{rank}.json").read_text())
    return {key: np.array(values) for key, values in found.items()}


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "nan"])
def test_is_the_training_of_one_process(trained: Path, name: str) -> None:
    one, two, other = seen(trained, "one", name), seen(trained, "two", name), seen(trained, "two", name, rank=1)
    assert one.keys() == two.keys() >= {"train loss", "val loss", "val score", "weights"}
    assert len(one["val loss"]) == 2
    for key, values in one.items():
        assert np.isfinite(values).all(), key
        tolerance = 1e-6 * np.abs(values).max() if key == "weights" else 1e-5 * np.abs(values)
        if name == "variance" and "score" in key:
            tolerance = 1e-4  # of Spearman: outputs that are nearly equal change places by rounding
        assert (np.abs(two[key] - values) <= tolerance).all(), (key, values, two[key])
        # every process goes on with the same weights, and decides by the same score
        assert (other[key] == two[key]).all(), key


def test_nan_in_one_process_stops_all(trained: Path) -> None:
    messages = [json.loads((trained / "two" / f"nan.{rank}.json").read_text())["error"] for rank in (0, 1)]
    (named,) = (message for message in messages if "train.h5 [z 0:4, y 0:64, x 64:128]" in message)
    (other,) = (message for message in messages if message != named)
    assert f"the loss is NaN or infinite in process {messages.index(named)}, whose message" in other


def test_the_first_process_writes_the_files(trained: Path) -> None:
    for name in CONFIGS:
        (events,) = (trained / "two" / name / "logs").iterdir()
        assert len(list(events.iterdir())) == 1
    state = torch.load(trained / "two" / "mse" / "last_checkpoint.pytorch", weights_only=True)
    assert not [key for key in state["model_state_dict"] if key.startswith("module.")]


def metrics() -> list[Any]:
    return [each.component for each in registry().registrations() if each.component.on != "patches"]


@pytest.mark.parametrize("metric", metrics(), ids=lambda metric: metric.name)
def test_a_metric_of_several_processes_is_that_of_all_voxels(metric: Any) -> None:
    draw = torch.Generator().manual_seed(1)
    whole, *parts = (metric.build(**metric.example) for _ in range(4))
    arguments = [torch.rand(200, dtype=torch.float64, generator=draw) * 0.8 + 0.1 for _ in range(2)]
    for built in (whole, *parts):
        if hasattr(built, "set_dtype"):
            built.set_dtype(torch.float64)
    whole.update(*arguments)
    # the second process has been shown nothing
    for part, own in ((parts[0], slice(150)), (parts[2], slice(150, 200))):
        part.update(*(values[own] for values in arguments))
    pairs = [[(parts[0], 150)], [(parts[1], 0)], [(parts[2], 50)]]
    ((merged, voxels),) = merging.over_processes(pairs[0], lambda own: [own, *pairs[1:]])
    assert voxels == 200
    assert float(merged.compute()) == pytest.approx(float(whole.compute()), rel=1e-9, abs=1e-12)


def test_a_metric_that_cannot_be_merged() -> None:
    with pytest.raises(ConfigError, match=r"no method merge\(other\)"):
        merging.check(object(), "eval_metric.name")
