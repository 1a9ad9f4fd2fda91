"""Metrics of this project through upstream's own ``train3dunet``, and which model is kept as the best."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d.trainer import create_trainer

from p3d_regression.metrics.registry import registry
from p3d_regression.metrics.score import resolve
from support.checks import merged
from support.ours import OURS, compared, last, log_of, stopped_with
from support.traps import Trap, Traps

#: Every metric that there is.
METRICS = [registration.component for registration in registry().registrations()]


def with_five_patches(trap: Trap) -> dict[str, Any]:
    """A validation of five patches: with batches of three the last one is smaller."""
    noise = np.random.default_rng(2).normal(size=(4, 64, 128))
    raw = np.cumsum(np.cumsum(noise, 1), 2)
    raw = (raw - raw.min()) / np.ptp(raw)
    # some patches are dark: a mean over batches is not the metric of all voxels
    trap.edit("val", raw=raw.astype(np.float32), label=(3 + 30 * raw**4).astype(np.float32))
    trap.edit("train", label=lambda file: np.abs(file["label"]) + 3)
    return {"loaders": {"val": {"slice_builder": {"stride_shape": [4, 64, 16]}}}}


#: A metric for each kind of state that torchmetrics keeps is enough with batches of one.
_ALONE = ("R2Score", "PearsonCorrCoef", "PeakSignalNoiseRatio", "SpearmanCorrCoef")

CASES = [(metric.name, size) for metric in METRICS for size in (1, 3) if size == 3 or metric.name in _ALONE]


#: These through a whole training; all of them by the validation of a trainer in this process.
TRAINED = [
    ("PeakSignalNoiseRatio", 1),
    ("R2Score", 3),
    ("SpearmanCorrCoef", 3),
    ("StructuralSimilarityIndexMeasure", 3),
]


def options_of(name: str) -> dict[str, Any]:
    registration = registry().get(name, "here")
    assert registration is not None
    example = {**registration.component.example}
    if name == "StructuralSimilarityIndexMeasure":
        example["sigma"] = [0.5, 1.5, 1.5]
    return {"name": name, **example}


def changes_for(name: str, batch_size: int, five_patches: dict[str, Any]) -> dict[str, Any]:
    changes = merged(OURS, five_patches)
    changes = merged(changes, {"eval_metric": options_of(name), "loaders": {"batch_size": batch_size}})
    return merged(changes, {"model": {"final_activation": "softplus"}})


def of_all_voxels(name: str, output: torch.Tensor, label: torch.Tensor) -> float:
    """The metric of everything at once, in float64."""
    output, label = output.double(), label.double()
    assert len(label) == 5
    configured = resolve(options_of(name))
    metric: Any = configured.component.build(**configured.arguments)
    if hasattr(metric, "set_dtype"):
        metric.set_dtype(torch.float64)
    registration = registry().get(name, "here")
    assert registration is not None
    if registration.component.on == "voxels":
        metric.update(output.flatten(), label.flatten())
    else:
        metric.update(output, label)
    return float(metric.compute())


@pytest.mark.parametrize(("name", "batch_size"), TRAINED)
def test_the_score_of_a_training_is_that_of_the_whole_validation(runs: Traps, name: str, batch_size: int) -> None:
    trap = runs.new()
    run = trap.train(changes_for(name, batch_size, with_five_patches(trap)), iterations=2).succeeded()
    wanted = of_all_voxels(name, *compared(run))
    assert last(run) == pytest.approx(wanted, rel=2e-6)
    (score,) = re.findall(r"Validation finished. Loss: .* Evaluation score: (\S+)", log_of(run))[-1:]
    assert float(score) == pytest.approx(wanted, rel=1e-6)


@pytest.fixture(scope="module")
def five_patches(runs: Traps) -> tuple[Trap, dict[str, Any]]:
    trap = runs.new()
    return trap, with_five_patches(trap)


@pytest.mark.parametrize(("name", "batch_size"), CASES)
def test_every_metric_is_that_of_the_whole_validation(
    five_patches: tuple[Trap, dict[str, Any]], tmp_path: Path, name: str, batch_size: int
) -> None:
    trap, patches = five_patches
    changes = merged(changes_for(name, batch_size, patches), {"trainer": {"checkpoint_dir": str(tmp_path)}})
    trainer = create_trainer(trap.training_config(changes))
    try:
        score = trainer.validate()
    finally:
        trainer.writer.close()
    model = trainer.model.eval()
    with torch.no_grad():
        pairs = [(model(raw), label) for raw, label in trainer.loaders["val"]]
    output, label = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    assert score == pytest.approx(of_all_voxels(name, output, label), rel=2e-6)


class TestTheBestIsTheBest:
    """Upstream's default keeps the worst model of an error."""

    @pytest.mark.parametrize(("metric", "best"), [("MeanAbsoluteError", min), ("R2Score", max)])
    def test_without_the_direction_in_the_config(self, runs: Traps, metric: str, best: Any) -> None:
        trap = runs.new()
        changes = {**OURS, "eval_metric": {"name": metric}, "lr_scheduler": {"name": "ReduceLROnPlateau"}}
        changes = merged(changes, {"trainer": {"validate_after_iters": 1}, "optimizer": {"learning_rate": 0.3}})
        run = trap.train(changes, iterations=4).succeeded()
        scores = [value for _, value in run.left.scalars["val_eval_score_avg"]]
        assert scores.index(best(scores)) != len(scores) - 1, "too easy: the last one is the best"
        kept = torch.load(run.left.directory / "checkpoints" / "best_checkpoint.pytorch", map_location="cpu")
        assert kept["num_iterations"] == scores.index(best(scores)) + 1
        assert kept["best_eval_score"] == pytest.approx(best(scores), rel=1e-6)
        assert type(kept["best_eval_score"]) is float
        higher = str(best is max).lower()
        assert f"set trainer.eval_score_higher_is_better: {higher}, from the metric" in log_of(run)
        assert f"set lr_scheduler.mode: {'max' if best is max else 'min'}, from the metric" in log_of(run)

    @pytest.mark.parametrize(
        "lines",
        [
            {"trainer": {"eval_score_higher_is_better": True}},
            {"lr_scheduler": {"name": "ReduceLROnPlateau", "mode": "max"}},
        ],
    )
    def test_a_contradiction_stops_before_training(self, runs: Traps, lines: dict[str, Any]) -> None:
        trap = runs.new()
        message = stopped_with(trap.train(merged({**OURS, "eval_metric": {"name": "MAE"}}, lines)), "ConfigError")
        assert "P3D202" in message or "P3D203" in message
        assert not (trap.directory / "checkpoints").exists()

    def test_a_plain_config_stays_as_it_is_with_a_warning(self, runs: Traps) -> None:
        trap = runs.new()
        run = trap.train({"trainer": {"eval_score_higher_is_better": ..., "validate_after_iters": 1}}).succeeded()
        scores = [value for _, value in run.left.scalars["val_eval_score_avg"]]
        kept = torch.load(run.left.directory / "checkpoints" / "best_checkpoint.pytorch", map_location="cpu")
        assert kept["best_eval_score"] == pytest.approx(max(scores), rel=1e-6)
        assert "P3D202" in log_of(run)


def test_resuming_goes_on_with_the_same_score(runs: Traps, tmp_path: Path) -> None:
    trap = runs.new()
    changes = merged(OURS, {"eval_metric": {"name": "R2Score"}})
    score = last(trap.train(changes, iterations=2).succeeded())
    resume = {
        "trainer": {"resume": str(trap.directory / "checkpoints" / "last_checkpoint.pytorch"), "max_num_iterations": 6}
    }
    second = trap.train(merged(changes, resume))
    second.succeeded()
    (kept,) = re.findall(r"Best val score: (\S+)\.", log_of(second))
    assert float(kept) == pytest.approx(score, rel=1e-6)
