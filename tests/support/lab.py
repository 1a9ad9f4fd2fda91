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

from support.environments import Environment

#: Labels that neither Sigmoid nor Softmax can say.
LABEL_RANGE = (-6.0, 30.0)

#: Smallest models that upstream can train here.
TINY = {"in_channels": 1, "out_channels": 1, "f_maps": [8, 16], "num_groups": 4}

_NORMALISED = [{"name": "Standardize"}, {"name": "ToTensor", "expand_dims": True}]


def write_volumes(directory: Path, *, depth: int = 8) -> None:
    """Write ``train.h5`` and ``val.h5``, as upstream wants them apart."""
    for seed, name in enumerate(("train", "val")):
        _write_volume(directory / f"{name}.h5", depth=depth, seed=seed)


def _write_volume(path: Path, *, depth: int, seed: int) -> None:
    """Write a smooth random volume and labels that follow from it, shape (depth, 64, 96)."""
    noise = np.random.default_rng(seed).normal(size=(depth, 64, 96))
    raw = np.cumsum(np.cumsum(noise, 1), 2)
    raw = ((raw - raw.min()) / np.ptp(raw)).astype(np.float32)
    low, high = LABEL_RANGE
    with h5py.File(path, "w") as file:
        file["raw"] = raw
        file["label"] = (low + (high - low) * raw).astype(np.float32)


def training_config(directory: Path, model: Mapping[str, Any], *, iterations: int = 4) -> dict[str, Any]:
    """A config for ``train3dunet`` on the volumes of the directory."""
    depth = 1 if "2D" in model["name"] else 8

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
            "log_after_iters": 1,
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
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
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
    def scalars(self) -> dict[str, list[tuple[int, float]]]:
        """Every scalar of the event file: tag -> (step, value)."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (events,) = self.directory.glob("checkpoints/logs/*/events*")
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        import torch

        state = torch.load(self.directory / "checkpoints" / "last_checkpoint.pytorch", map_location="cpu")
        return {key: value.numpy() for key, value in state["model_state_dict"].items()}


class Lab:
    """Runs trainings and remembers them, so that tests can share them."""

    def __init__(self, directory: Path, *, plugin: Environment, bare: Environment) -> None:
        self._directory = directory
        self._environments = {"plugin": plugin, "bare": bare}
        self._done: dict[tuple[str, str], Trained] = {}

    def train(self, environment: str, **model: Any) -> Trained:
        """Train and predict in the environment ``plugin`` or ``bare``."""
        (trained,) = self.train_all((environment, model))
        return trained

    def train_all(self, *jobs: tuple[str, Mapping[str, Any]]) -> list[Trained]:
        """Several at once, one core each: (environment, model section)."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            return list(pool.map(lambda job: self._train(*job), jobs))

    def _train(self, environment: str, model: Mapping[str, Any]) -> Trained:
        model = {"name": "UNet3D", **model}
        key = (environment, repr(sorted(model.items())))
        if key not in self._done:
            self._done[key] = self._run(self._environments[environment], model, self._new_directory(model))
        return self._done[key]

    def _new_directory(self, model: Mapping[str, Any]) -> Path:
        directory = self._directory / f"{len(list(self._directory.iterdir()))}-{model['name']}-{id(model)}"
        directory.mkdir()
        write_volumes(directory, depth=1 if "2D" in model["name"] else 8)
        return directory

    @staticmethod
    def _run(environment: Environment, model: Mapping[str, Any], directory: Path) -> Trained:
        train = write_config(directory / "train.yml", training_config(directory, model))
        predict = write_config(directory / "predict.yml", prediction_config(directory, model))
        logs = []
        for command, config in (("train3dunet", train), ("predict3dunet", predict)):
            result = environment.run(command, "--config", config)
            assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
            logs.append(result.stdout)
        return Trained(directory, *logs)
