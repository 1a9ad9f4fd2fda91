"""Real trainings on tiny volumes, with upstream's own console scripts."""

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from support.environments import Programs

#: Labels that neither Sigmoid nor Softmax can say.
LABEL_RANGE = (-6.0, 30.0)

#: Smallest models that upstream can train here.
TINY = {"in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 4}

#: Of the volumes, in voxels. Upstream insists on patches of 64 or more in Y and X.
DEPTH = 4

#: What labels can be: between two values, or two channels of fractions that add up to 1, of their logarithms, or of
#: the components of a unit vector.
Labels = tuple[float, float] | str

_NORMALISED = [{"name": "Standardize"}, {"name": "ToTensor", "expand_dims": True}]


def write_volumes(directory: Path, *, depth: int = DEPTH, labels: Labels = LABEL_RANGE) -> None:
    """Write ``train.h5`` and ``val.h5``, as upstream wants them apart: two patches, and one."""
    for seed, (name, width) in enumerate([("train", 96), ("val", 64)]):
        _write_volume(directory / f"{name}.h5", (depth, 64, width), seed, labels)


def _write_volume(path: Path, shape: tuple[int, ...], seed: int, labels: Labels) -> None:
    """Write a smooth random volume and labels that depend on it, and on something that it does not show."""
    draw = np.random.default_rng(seed)
    raw, other = (_smooth(draw.normal(size=shape)) for _ in range(2))
    with h5py.File(path, "w") as file:
        file["raw"] = raw.astype(np.float32)
        file["label"] = labels_of(_from_0_to_1(raw + other), labels).astype(np.float32)


def _smooth(noise: np.ndarray) -> np.ndarray:
    return _from_0_to_1(np.cumsum(np.cumsum(noise, 1), 2))


def _from_0_to_1(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / np.ptp(values)


def labels_of(raw: np.ndarray, labels: Labels) -> np.ndarray:
    """Labels for a volume of values 0..1."""
    fractions = np.stack([0.2 + 0.6 * raw, 0.8 - 0.6 * raw])
    match labels:
        case "fractions":
            return fractions
        case "logarithms":
            return np.log(fractions)
        case "directions":
            return np.stack([np.cos(3 * raw), np.sin(3 * raw)])
        case low, high:
            return low + (high - low) * raw
    raise ValueError(labels)


def training_config(directory: Path, model: Mapping[str, Any], *, iterations: int = 4) -> dict[str, Any]:
    """A config for ``train3dunet`` on the volumes of the directory."""
    depth = 1 if "2D" in model["name"] else DEPTH

    def loader(name: str, stride: int) -> dict[str, Any]:
        return {
            "file_paths": [str(directory / f"{name}.h5")],
            "slice_builder": {
                "name": "SliceBuilder",
                "patch_shape": [depth, 64, 64],
                "stride_shape": [depth, 64, stride],
            },
            "transformer": {"raw": _NORMALISED, "label": [{"name": "ToTensor", "expand_dims": True}]},
        }

    return {
        "manual_seed": 7,
        "device": "cpu",
        "model": {**TINY, **model},
        "loss": {"name": "MSELoss"},
        "eval_metric": {"name": "MSE"},
        "optimizer": {"name": "Adam", "learning_rate": 0.02},
        "trainer": {
            "checkpoint_dir": str(directory / "checkpoints"),
            "eval_score_higher_is_better": False,
            "max_num_epochs": 100,
            "max_num_iterations": iterations,
            "validate_after_iters": max(1, iterations // 2),
            "log_after_iters": 2,  # once per epoch of two patches
        },
        "loaders": {
            "dataset": "StandardHDF5Dataset",
            "num_workers": 0,
            "batch_size": 1,
            "raw_internal_path": "raw",
            "label_internal_path": "label",
            "train": loader("train", 32),
            "val": loader("val", 64),
        },
    }


def prediction_config(directory: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """A config for ``predict3dunet`` with what was trained in the directory, on its validation volume."""
    train = training_config(directory, model)
    test = copy.deepcopy(train["loaders"]["val"])
    del test["transformer"]["label"]
    return {
        "model_path": str(directory / "checkpoints" / "last_checkpoint.pytorch"),
        "device": "cpu",
        "model": train["model"],
        "predictor": {"name": "StandardPredictor"},
        "loaders": {
            "dataset": "StandardHDF5Dataset",
            "num_workers": 0,
            "batch_size": 1,
            "raw_internal_path": "raw",
            "output_dir": str(directory / "predictions"),
            "test": test,
        },
    }


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    # libyaml: there are thousands of configs
    path.write_text(yaml.dump(dict(config), Dumper=yaml.CSafeDumper, sort_keys=False))
    return path


@dataclass(frozen=True)
class Trained:
    """What one training and prediction left behind."""

    directory: Path
    train_log: str
    predict_log: str

    @cached_property
    def prediction(self) -> np.ndarray:
        with h5py.File(self.directory / "predictions" / "val_predictions.h5") as file:
            return file["predictions"][()]

    @cached_property
    def labels(self) -> np.ndarray:
        """Of the volume that is predicted."""
        with h5py.File(self.directory / "val.h5") as file:
            return file["label"][()]

    @cached_property
    def scalars(self) -> dict[str, list[tuple[int, float]]]:
        """Every scalar of the event file: tag -> (step, value)."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        # in a directory of its own for each run, but not in old versions
        (events,) = self.directory.glob("checkpoints/logs/**/events*")
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        import torch

        state = torch.load(self.directory / "checkpoints" / "last_checkpoint.pytorch", map_location="cpu")
        return {key: value.numpy() for key, value in state["model_state_dict"].items()}


@dataclass(frozen=True)
class Job:
    """One training and prediction.

    Attributes:
        environment: one of the lab's; ``fork...`` is upstream 1.3.8.
        model: ``model`` section of the training config.
        predict: ``model`` section of the prediction config; None for the same.
        labels: what the labels are.
        iterations: of training; validated in the middle and at the end.
    """

    environment: str
    model: Mapping[str, Any]
    predict: Mapping[str, Any] | None = None
    labels: Labels = LABEL_RANGE
    iterations: int = 4


class Lab:
    """Runs trainings and remembers them, so that tests can share them."""

    def __init__(self, directory: Path, environments: Mapping[str, Programs]) -> None:
        self._directory = directory
        self._environments = environments
        self._done: dict[str, Trained] = {}

    def train(self, environment: str, **model: Any) -> Trained:
        """Train and predict in the environment ``plugin`` or ``bare``."""
        (trained,) = self.train_all((environment, model))
        return trained

    def train_all(self, *jobs: tuple[str, Mapping[str, Any]]) -> list[Trained]:
        """Several at once, one core each: (environment, model section)."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            return list(pool.map(lambda job: self.do(Job(*job)), jobs))

    def do(self, job: Job) -> Trained:
        """Do what has not been done before."""
        predicted = job.model if job.predict is None else job.predict
        models = [{"name": "UNet3D", **model} for model in (job.model, predicted)]
        key = repr((job.environment, [sorted(model.items()) for model in models], job.labels, job.iterations))
        if key not in self._done:
            self._done[key] = self._run(job, *models)
        return self._done[key]

    def _run(self, job: Job, model: Mapping[str, Any], predicted: Mapping[str, Any]) -> Trained:
        directory = self._directory / f"{len(list(self._directory.iterdir()))}-{model['name']}-{id(model)}"
        directory.mkdir()
        write_volumes(directory, depth=1 if "2D" in model["name"] else DEPTH, labels=job.labels)
        environment = self._environments[job.environment]
        configs = {
            "train3dunet": training_config(directory, model, iterations=job.iterations),
            "predict3dunet": prediction_config(directory, predicted),
        }
        logs = []
        for command, config in configs.items():
            if job.environment.startswith("fork"):
                suit_the_fork(config)
            path = write_config(directory / f"{command}.yml", config)
            result = environment.run(command, "--config", path)
            assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
            logs.append(result.stdout)
        return Trained(directory, *logs)


def suit_the_fork(config: dict[str, Any]) -> None:
    """What upstream 1.3.8 asks of a config: it takes no ``device: cpu``, and a scheduler is not optional."""
    del config["device"]
    if "trainer" in config:
        config["lr_scheduler"] = {"name": "MultiStepLR", "milestones": [1000], "gamma": 1.0}
    else:
        config["predictor"]["patch_halo"] = [0, 0, 0]
