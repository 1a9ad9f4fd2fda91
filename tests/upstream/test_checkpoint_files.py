"""Checkpoints, and the copies of training configs that are left near them, on files made up here."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from p3d_regression.checks.at_start import check_at_start
from p3d_regression.cli.main import main
from p3d_regression.upstream import checkpoints
from p3d_regression.upstream.logs import training_config_beside, training_configs_beside
from support.lab import prediction_config, training_config, write_config


class Hostile:
    """An object whose pickle makes a directory when it is read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.directory),)


@pytest.fixture(params=[False, True], ids=["zip", "before torch 1.6"])
def hostile(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "checkpoints" / "last_checkpoint.pytorch"
    path.parent.mkdir()
    state = {"model_state_dict": {}, "num_iterations": 1, "more": Hostile(tmp_path / "executed")}
    torch.save(state, path, _use_new_zipfile_serialization=not request.param)
    return path


@pytest.mark.parametrize("forced", [False, True], ids=["", "pickles forced"])
class TestNothingInACheckpointIsExecuted:
    @pytest.fixture(autouse=True)
    def force(self, forced: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
        if forced:
            monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        yield
        assert not (tmp_path / "executed").exists()

    def test_by_the_function_that_reads_them(self, hostile: Path) -> None:
        for read in (checkpoints.load_checkpoint, checkpoints.checkpoint_metadata):
            with pytest.raises(Exception, match="mkdir"):
                read(str(hostile))

    @pytest.mark.parametrize("which", ["predict", "resume", "pre_trained"])
    def test_by_the_checks(self, hostile: Path, which: str, tmp_path: Path) -> None:
        model = {"name": "UNet3D"}
        config = prediction_config(tmp_path, model) if which == "predict" else training_config(tmp_path, model)
        if which != "predict":
            config["trainer"][which] = str(hostile)
        path = write_config(tmp_path / "config.yml", config)
        result = CliRunner().invoke(main, ["check", str(path)])
        assert result.exit_code == 1, result.output
        assert which != "predict" or "P3D601" in result.output
        check_at_start(config, "predict" if which == "predict" else "train")

    def test_by_export(self, hostile: Path, tmp_path: Path) -> None:
        config = write_config(tmp_path / "config.yml", training_config(tmp_path, {"name": "UNet3D"}))
        arguments = ["export", str(hostile), str(tmp_path / "out.pytorch"), "--config", str(config)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert "cannot be read as a checkpoint" in result.output


def test_the_newest_training_config_comes_first(tmp_path: Path) -> None:
    """Whatever their names: each training has a directory of its own, named after its start."""
    for start, name in [("2026-03-01_10-00-00", "b"), ("2026-11-20_08-30-00", "a"), ("2025-12-31_23-59-59", "c")]:
        directory = tmp_path / "logs" / start
        directory.mkdir(parents=True)
        (directory / f"{name}.yml").write_text(yaml.safe_dump({"trainer": {}, "model": {"name": start}}))
    checkpoint = tmp_path / "best_checkpoint.pytorch"
    assert [path.name for path, _ in training_configs_beside(checkpoint)] == ["a.yml", "b.yml", "c.yml"]
    found = training_config_beside(checkpoint)
    assert found is not None
    assert found[1]["model"] == {"name": "2026-11-20_08-30-00"}


def test_what_is_no_training_config_is_skipped(tmp_path: Path) -> None:
    directory = tmp_path / "logs" / "2026-03-01_10-00-00"
    directory.mkdir(parents=True)
    for name, text in [("a.yml", "trainer: ["), ("b.yml", "- 1"), ("c.yml", "model: {}"), ("d.yml", "trainer: {}")]:
        (directory / name).write_text(text)
    assert [path.name for path, _ in training_configs_beside(tmp_path / "best_checkpoint.pytorch")] == ["d.yml"]
