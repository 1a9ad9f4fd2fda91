"""Trainings that use this project, and what is asked of them."""

import re
from typing import Any

import numpy as np
import torch
import yaml

from support.traps import Run, Trap

#: What makes a config of a trap one that uses this project, and leaves the direction of the metric to it.
OURS: dict[str, Any] = {
    "model": {"final_activation": "none"},
    "trainer": {"eval_score_higher_is_better": ..., "log_after_iters": 1000},
}


def compared(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and labels of all patches of the validation, by upstream's own model and loader and the last weights."""
    from pytorch3dunet.datasets.utils import get_train_loaders
    from pytorch3dunet.unet3d.model import get_model
    from pytorch3dunet.unet3d.utils import load_checkpoint

    config = yaml.safe_load(run.config.read_text())
    model = get_model(config["model"]).eval()
    load_checkpoint(str(run.left.directory / "checkpoints" / "last_checkpoint.pytorch"), model)
    with torch.no_grad():
        pairs = [(model(raw), label) for raw, label in get_train_loaders(config)["val"]]
    outputs, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return outputs, labels


def last(run: Run, tag: str = "val_eval_score_avg") -> float:
    return run.left.scalars[tag][-1][1]


def stopped_with(run: Run, error: str) -> str:
    """Insist on it; the message, which has several lines."""
    assert run.result.returncode != 0, run.result.stdout[-2000:]
    # a subclass of it, too: RejectedConfigError
    starts = list(re.finditer(rf"^p3d_regression\.[\w.]*{error}: ", run.result.stderr, re.MULTILINE))
    assert starts, run.result.stderr[-4000:]
    return run.result.stderr[starts[-1].start() :]


def log_of(run: Run) -> str:
    return run.result.stdout


def hide(trap: Trap, value: float, *, part: float = 0.3) -> None:
    """Take labels away, in train.h5 and val.h5."""
    for seed, name in enumerate(("train", "val")):
        hidden = np.random.default_rng(seed).random((4, 64, 96 if name == "train" else 64)) < part
        trap.edit(name, label=lambda file, hidden=hidden: np.where(hidden, np.float32(value), file["label"]))


def with_two_channels(trap: Trap) -> None:
    for name in ("train", "val"):
        trap.edit(
            name, label=lambda file: np.stack([(file["raw"] > 0.5) * 1.0, 20 * file["raw"] + 5]).astype(np.float32)
        )
