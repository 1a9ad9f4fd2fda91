"""``lr_scheduler.step_per``: what it may be, and what rules make of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p3d_regression.checks.registry import rules
from p3d_regression.checks.run import check_file
from p3d_regression.errors import ConfigError
from p3d_regression.training import schedule
from p3d_regression.training.resuming import Position
from support.checks import Silent
from support.lab import training_config, write_config, write_volumes


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "StepLR", "step_size": 2, "step_per": "batch"}, "'batch' is not one of iteration, epoch, validation"),
        ({"name": "StepLR", "step_size": 2, "step_per": True}, "True is not one of"),
        ({"name": "ReduceLROnPlateau", "step_per": "epoch"}, "is epoch, but ReduceLROnPlateau needs the score"),
    ],
)
def test_what_cannot_be_used(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        schedule.step_per(section)
    fixed = raised.value.found.fix.applied_to({"lr_scheduler": section})
    assert schedule.step_per(fixed["lr_scheduler"]) in schedule.UNITS


@pytest.mark.parametrize(
    ("batches", "is_resumed", "steps"), [(None, False, 0), (None, True, 1), (5, True, 1), (3, True, 0)]
)
def test_an_epoch_that_is_over_counts(batches: int | None, is_resumed: bool, steps: int) -> None:
    found: list[int] = []
    trainer = SimpleNamespace(scheduler=SimpleNamespace(step=lambda: found.append(1)), train=lambda: False)
    position = None if batches is None else Position(batches, 5, 1, [], [])
    schedule.use(trainer, "epoch", position, is_resumed=is_resumed)
    assert len(found) == steps
    trainer.scheduler.step()  # of a validation
    trainer.train()
    assert len(found) == steps + 1


@pytest.mark.parametrize(
    ("scheduler", "codes"),
    [
        # 100 iterations, 4 in an epoch, 10 validations
        ({"name": "MultiStepLR", "milestones": [50, 80]}, {"P3D232"}),
        ({"name": "MultiStepLR", "milestones": [50, 80], "step_per": "iteration"}, set()),
        ({"name": "MultiStepLR", "milestones": [10, 20], "step_per": "epoch"}, set()),
        ({"name": "MultiStepLR", "milestones": [500, 800], "step_per": "iteration"}, {"P3D232"}),
        ({"name": "ExponentialLR", "gamma": 0.1, "step_per": "iteration"}, {"P3D232"}),
        ({"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 50, "step_per": "iteration"}, {"P3D230"}),
        ({"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 102, "step_per": "iteration"}, set()),
        ({"name": "ReduceLROnPlateau", "step_per": "epoch"}, {"P3D212"}),
    ],
)
def test_rules_know_when_it_steps(tmp_path: Path, scheduler: dict[str, Any], codes: set[str]) -> None:
    write_volumes(tmp_path)
    config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none"}, iterations=100)
    config["trainer"] |= {"validate_after_iters": 10, "max_num_epochs": 1000}
    config["lr_scheduler"] = scheduler
    report = check_file(str(write_config(tmp_path / "t.yml", config)), [], rules(), with_data=True, progress=Silent())
    found = {finding.rule.code for finding in report.findings}
    assert found & {"P3D212", "P3D230", "P3D232"} == codes
