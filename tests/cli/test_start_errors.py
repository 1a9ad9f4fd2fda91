"""What a user reads where a config is wrong: a block of lines, not a traceback."""

from pathlib import Path

import pytest

from p3d_regression.patches import program
from support.environments import Environment
from support.lab import training_config, write_config, write_volumes
from support.preforked import Preforked


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    write_volumes(tmp_path)
    config = training_config(tmp_path, {"name": "UNet3D", "final_activation": "none", "target_scaling": "standardize"})
    config["loaders"]["train"]["file_paths"] = [str(tmp_path / "trian.h5")]
    config["trainer"]["eval_score_higher_is_better"] = True
    return write_config(tmp_path / "train.yml", config)


def is_a_block(printed: str, program: str) -> bool:
    assert "Traceback" not in printed
    assert f"\n{program}: this config has 2 error(s).\n" in printed
    assert "P3D202 score-direction\ntrainer.eval_score_higher_is_better: is true, but MSE" in printed
    assert "    trainer:\n      eval_score_higher_is_better: false\n" in printed
    # said before anything has read labels
    assert "did you mean train.h5?" in printed
    assert "measuring the labels" not in printed
    assert "P3D_REGRESSION_TRACEBACK=1 before the command" in printed
    return True


def test_the_console_script(plugin: Environment, wrong: Path) -> None:
    result = plugin.having(P3D_REGRESSION_TRACEBACK="0").run("train3dunet", "--config", wrong)
    assert result.returncode == 1
    assert is_a_block(result.stderr, "train3dunet")


def test_the_module(forked: Preforked, wrong: Path) -> None:
    quiet = forked.having(P3D_REGRESSION_TRACEBACK="0")
    result = quiet.run("train3dunet", "--config", wrong)
    assert result.returncode == 1
    assert is_a_block(result.stderr, "train3dunet")


def test_with_the_traceback(forked: Preforked, wrong: Path) -> None:
    result = forked.having(P3D_REGRESSION_TRACEBACK="1").run("train3dunet", "--config", wrong)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RejectedConfigError: this config has 2 error(s):" in result.stderr


def test_an_error_of_pytorch_3dunet_keeps_its_traceback(forked: Preforked, tmp_path: Path) -> None:
    config = training_config(tmp_path, {"name": "UNet3D"})
    result = forked.having(P3D_REGRESSION_TRACEBACK="0").run(
        "train3dunet", "--config", write_config(tmp_path / "train.yml", config)
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_other_programs_get_the_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("P3D_REGRESSION_TRACEBACK", raising=False)
    assert program.patch() is None
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/predict3dunet", "--config", "a.yml"])
    patch = program.patch()
    assert patch is not None
    import sys

    ours = sys.excepthook
    patch.undo()
    assert sys.excepthook is not ours
