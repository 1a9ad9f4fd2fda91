"""Trainings one after the other in one process, or in each of those that torchrun has started.

``torchrun --nproc-per-node 2 together.py DIRECTORY`` trains with each config of the directory; a group of processes is
started once for all of them. Each process writes what it has seen to ``NAME.RANK.json``.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from p3d_regression.errors import NonFiniteLossError


def train(path: Path) -> dict[str, Any]:
    """As ``train3dunet`` does; returns losses and scores of each validation, and writes the weights beside it."""
    from pytorch3dunet.augment import transforms
    from pytorch3dunet.unet3d.config import TorchDevice
    from pytorch3dunet.unet3d.trainer import create_trainer

    config = yaml.safe_load(path.read_text())
    config["device"] = TorchDevice(config["device"])
    # as in a process of its own
    transforms.GLOBAL_RANDOM_STATE = np.random.RandomState(47)
    random.seed(config["manual_seed"])
    torch.manual_seed(config["manual_seed"])
    trainer = create_trainer(config)
    seen: dict[str, list[float]] = {}
    log = trainer._log_stats

    def log_stats(phase: str, loss: float, score: Any) -> None:
        seen.setdefault(f"{phase} loss", []).append(float(loss))
        seen.setdefault(f"{phase} score", []).append(float(score))
        log(phase, loss, score)

    trainer._log_stats = log_stats
    try:
        trainer.fit()
    except NonFiniteLossError as error:
        return {"error": str(error)}
    weights = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).tolist()
    return {**seen, "weights": weights}


def main(directory: Path) -> None:
    from p3d_regression import group

    leave, group.leave = group.leave, lambda: None
    for path in sorted(directory.glob("*.yml")):
        path.with_suffix(f".{group.rank()}.json").write_text(json.dumps(train(path)))
    leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
