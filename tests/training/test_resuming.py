"""A resumed training goes on with its learning rate scheduler, in which pytorch-3dunet alone begins anew."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from p3d_regression.training import resuming
from support import together
from support.lab import training_config, write_config, write_volumes
from support.preforked import Preforked

STEPS = {"name": "StepLR", "step_size": 4, "gamma": 0.1}


def train(programs: Preforked, directory: Path, name: str, model: dict[str, Any], **trainer: Any) -> tuple[str, float]:
    """Train with a validation after each 2 iterations; return what was printed, and the learning rate in the end."""
    config = training_config(directory, {"name": "UNet3D", **model})
    config["lr_scheduler"] = STEPS
    config["trainer"] |= {"validate_after_iters": 2, "checkpoint_dir": str(directory / name), **trainer}
    done = programs.run("train3dunet", "--config", write_config(directory / f"{name}.yml", config))
    assert done.returncode == 0, done.stdout + done.stderr
    written = Path(trainer["resume"]).parent if "resume" in trainer else directory / name
    state = torch.load(written / "last_checkpoint.pytorch", weights_only=True)
    return done.stdout, state["optimizer_state_dict"]["param_groups"][0]["lr"]


def test_goes_on_where_it_was(forked: Preforked, forked_bare: Preforked, tmp_path: Path) -> None:
    write_volumes(tmp_path)
    ours = {"final_activation": "none"}
    _, whole = train(forked, tmp_path, "whole", ours, max_num_iterations=12)
    _, half = train(forked, tmp_path, "half", ours, max_num_iterations=6)
    assert whole == pytest.approx(half / 10)
    last = str(tmp_path / "half" / "last_checkpoint.pytorch")
    # pytorch-3dunet alone reads the same checkpoint, and takes as many validations again
    (tmp_path / "plain").mkdir()
    copied = tmp_path / "plain" / "last_checkpoint.pytorch"
    copied.write_bytes(Path(last).read_bytes())
    _, plain = train(forked_bare, tmp_path, "bare", {}, max_num_iterations=10, resume=str(copied))
    assert plain == half
    printed, resumed = train(forked, tmp_path, "resumed", ours, max_num_iterations=12, resume=last)
    assert "learning rate scheduler: StepLR goes on after step 3, learning rate 0.02" in printed
    assert resumed == whole
    # each validation once: at 8, 10 and 12
    assert printed.count("Validation finished") == 3


def scheduler(name: str, **options: Any) -> Any:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = getattr(lr_scheduler, name)(optimizer, **options)
    return SimpleNamespace(optimizer=optimizer, scheduler=made, num_iterations=1)


def restored(tmp_path: Path, held: Any, trainer: Any) -> None:
    torch.save(held, tmp_path / "last_checkpoint.pytorch")
    resuming.restore(trainer, {"trainer": {"resume": str(tmp_path / "last_checkpoint.pytorch")}})


def test_the_best_score_and_the_patience_so_far(tmp_path: Path) -> None:
    old = scheduler("ReduceLROnPlateau", patience=3)
    for loss in (5.0, 4.0, 4.5, 4.6):
        old.scheduler.step(loss)
    new = scheduler("ReduceLROnPlateau", patience=2)
    restored(tmp_path, resuming.kept(old), new)
    assert (new.scheduler.best, new.scheduler.num_bad_epochs) == (4.0, 2)
    # the config may have another patience
    assert new.scheduler.patience == 2
    new.scheduler.step(4.7)
    assert new.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("StepLR", {"step_size": 2}),
        ("MultiStepLR", {"milestones": [2, 4]}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("CosineAnnealingLR", {"T_max": 9}),
        ("CosineAnnealingWarmRestarts", {"T_0": 3}),
        ("OneCycleLR", {"max_lr": 2.0, "total_steps": 20}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "cycle_momentum": False}),
        ("LinearLR", {"total_iters": 8}),
        ("PolynomialLR", {"total_iters": 8}),
    ],
)
def test_each_scheduler_of_torch(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    old = scheduler(name, **options)
    for _ in range(3):
        old.optimizer.step()
        old.scheduler.step()
    new = scheduler(name, **options)
    # as pytorch-3dunet does it before
    new.optimizer.load_state_dict(old.optimizer.state_dict())
    restored(tmp_path, resuming.kept(old), new)
    for _ in range(5):
        for each in (old, new):
            each.optimizer.step()
            each.scheduler.step()
        assert new.optimizer.param_groups[0]["lr"] == pytest.approx(old.optimizer.param_groups[0]["lr"])


def test_what_cannot_go_on_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = scheduler("StepLR", step_size=2)
    restored(tmp_path, {"num_iterations": 1}, new)
    assert "does not hold the state of the learning rate scheduler: StepLR begins anew" in caplog.text
    restored(tmp_path, resuming.kept(scheduler("ExponentialLR", gamma=0.9)), new)
    assert "StepLR begins, in place of the ExponentialLR of the checkpoint" in caplog.text
    assert new.scheduler.last_epoch == 0
    # the iteration of the checkpoint is over
    assert new.num_iterations == 2


@pytest.mark.parametrize(
    ("workers", "half", "unit", "steps"), [(0, 2, "iteration", 8), (1, 2, "validation", 4), (0, 5, "epoch", 1)]
)
def test_an_interrupted_training_is_one_that_was_not(
    tmp_path: Path, workers: int, half: int, unit: str, steps: int
) -> None:
    write_volumes(tmp_path)

    def trained(name: str, iterations: int, **trainer: Any) -> dict[str, Any]:
        model = {"name": "UNet3D", "final_activation": "none", "dropout_prob": 0.2}
        config = training_config(tmp_path, model)
        config["model"]["layer_order"] = "gcrd"
        config["lr_scheduler"] = {"name": "ExponentialLR", "gamma": 0.8, "step_per": unit}
        config["loaders"]["num_workers"] = workers
        # 5 patches: one checkpoint is of the middle of an epoch, and one of its end
        config["loaders"]["train"]["slice_builder"]["stride_shape"] = [4, 64, 8]
        transformer = config["loaders"]["train"]["transformer"]
        for target, part in list(transformer.items()):
            noise = [{"name": "AdditiveGaussianNoise", "scale": [0.1, 0.3], "execution_probability": 0.7}]
            added = [{"name": "RandomFlip"}, *(noise if target == "raw" else [])]
            transformer[target] = [*part[:-1], *added, part[-1]]
        config["trainer"] |= {"max_num_iterations": iterations, "validate_after_iters": half}
        config["trainer"] |= {"checkpoint_dir": str(tmp_path / name), **trainer}
        return together.train(write_config(tmp_path / f"{name}.yml", config))

    end = 2 * half + 3 if unit != "epoch" else 2 * half
    whole = trained("whole", end)
    state = torch.load(tmp_path / "whole" / "last_checkpoint.pytorch", weights_only=True)
    rate = training_config(tmp_path, {"name": "UNet3D"})["optimizer"]["learning_rate"]
    assert state["optimizer_state_dict"]["param_groups"][0]["lr"] == pytest.approx(rate * 0.8**steps)
    trained("half", half)
    last = str(tmp_path / "half" / "last_checkpoint.pytorch")
    assert trained("resumed", end, resume=last)["weights"] == whole["weights"]
    # without the states of the generators, other patches follow
    held = torch.load(last, weights_only=True)
    held["p3d_regression_resume"]["position"] = None
    (tmp_path / "other").mkdir()
    torch.save(held, tmp_path / "other" / "last_checkpoint.pytorch")
    other = trained("unlike", end, resume=str(tmp_path / "other" / "last_checkpoint.pytorch"))
    assert other["weights"] != whole["weights"]
