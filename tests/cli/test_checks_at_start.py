"""The rules that need no data, when upstream's own commands start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checks import merged
from support.lab import prediction_config, training_config, write_config, write_volumes
from support.preforked import Preforked

OURS = {"name": "UNet3D", "final_activation": "none"}
UPSTREAMS = {"name": "UNet3D", "is_segmentation": False}

#: The worst model would be kept, and in silence.
WRONG = {"trainer": {"eval_score_higher_is_better": True}}
CODE = "P3D202 score-direction: trainer.eval_score_higher_is_better: is true, but MSE is an error"


Train = Callable[..., Any]


@pytest.fixture
def train(forked: Preforked, tmp_path: Path) -> Train:
    def run(setting: str, config: dict[str, Any]) -> Any:
        environment = forked.having(P3D_REGRESSION_CHECKS=setting)
        return environment.run("train3dunet", "--config", write_config(tmp_path / "train.yml", config))

    write_volumes(tmp_path)
    return run


def findings(result: Any) -> list[str]:
    return [line for line in result.stdout.splitlines() if " WARNING P3DRegression - " in line]


class TestTraining:
    def test_an_error_stops_a_config_with_our_key_before_anything_is_built(self, train: Train, tmp_path: Path) -> None:
        result = train("", merged(training_config(tmp_path, OURS), WRONG))
        assert result.returncode != 0
        assert "ConfigError: this config has 1 error(s):" in result.stderr
        assert CODE in result.stderr
        assert "Fix: trainer: {eval_score_higher_is_better: false}" in result.stderr
        assert "`P3D_REGRESSION_CHECKS=warn` before the command" in result.stderr
        assert "Training iteration" not in result.stdout
        assert not (tmp_path / "checkpoints").exists()

    def test_an_untouched_config_is_warned_once_and_trains(self, train: Train, tmp_path: Path) -> None:
        result = train("", merged(training_config(tmp_path, UPSTREAMS), WRONG))
        assert result.returncode == 0, result.stderr
        (line,) = findings(result)
        assert CODE in line
        assert (tmp_path / "checkpoints" / "last_checkpoint.pytorch").exists()

    def test_a_good_config_is_not_mentioned(self, train: Train, tmp_path: Path) -> None:
        for model in (OURS, UPSTREAMS):
            result = train("", training_config(tmp_path, model))
            assert result.returncode == 0, result.stderr
            assert findings(result) == []

    @pytest.mark.parametrize("model", [OURS, UPSTREAMS], ids=["ours", "upstream's"])
    @pytest.mark.parametrize(("setting", "stops", "said"), [("off", 0, 0), ("warn", 0, 1), ("error", 1, 0)])
    def test_the_setting(
        self, train: Train, tmp_path: Path, model: dict[str, Any], setting: str, stops: int, said: int
    ) -> None:
        result = train(setting, merged(training_config(tmp_path, model), WRONG))
        assert (result.returncode != 0) == stops
        assert len(findings(result)) == said
        assert (CODE in result.stderr) == stops

    def test_a_setting_that_is_none(self, train: Train, tmp_path: Path) -> None:
        result = train("sometimes", training_config(tmp_path, UPSTREAMS))
        assert result.returncode == 0
        (line,) = findings(result)
        assert "P3D_REGRESSION_CHECKS=sometimes is not valid; write off, warn or error" in line

    def test_a_warning_never_stops(self, train: Train, tmp_path: Path) -> None:
        option = {"loss": {"name": "SmoothL1Loss", "reduction": "sum"}}
        for setting in ("", "error"):
            result = train(setting, merged(training_config(tmp_path, OURS), option))
            assert result.returncode == 0, result.stderr
            (line,) = findings(result)
            assert "P3D205 ignored-loss-option: loss.reduction" in line

    def test_what_the_builder_says_is_not_said_twice(self, train: Train, tmp_path: Path) -> None:
        result = train("", training_config(tmp_path, OURS | {"is_segmentation": True}))
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("decides the model's output") == 1


class TestPrediction:
    @pytest.fixture
    def predict(self, train: Train, forked: Preforked, tmp_path: Path) -> Train:
        assert train("", training_config(tmp_path, OURS)).returncode == 0

        def run(changes: dict[str, Any], model: dict[str, Any] = OURS) -> Any:
            config = merged(prediction_config(tmp_path, model), changes)
            path = write_config(tmp_path / "predict.yml", config)
            return forked.run("predict3dunet", "--config", path)

        return run

    @pytest.mark.parametrize("model", [OURS, {"name": "UNet3D"}], ids=["named", "remembered"])
    def test_an_error_stops_before_anything_is_written(
        self, predict: Train, tmp_path: Path, model: dict[str, Any]
    ) -> None:
        result = predict({"predictor": {"save_segmentation": True}}, model)
        assert result.returncode != 0
        assert "P3D603 segmentation-saved" in result.stderr
        assert not list(tmp_path.glob("predictions/*"))

    def test_a_good_config_is_not_mentioned(self, predict: Train) -> None:
        result = predict({})
        assert result.returncode == 0, result.stderr
        assert findings(result) == []

    def test_a_checkpoint_brings_its_last_layer_and_the_config_is_not_blamed(self, predict: Train) -> None:
        result = predict({}, {"name": "UNet3D", "final_sigmoid": False})
        assert result.returncode == 0, result.stderr
        assert findings(result) == []

    def test_a_warning(self, predict: Train) -> None:
        result = predict({"loaders": {"dataset": "LazyHDF5Dataset"}})
        assert result.returncode == 0, result.stderr
        (line,) = findings(result)
        assert "P3D605 input-file-written" in line


def test_run_as_a_module_the_prediction_is_checked_too(forked: Preforked, tmp_path: Path) -> None:
    """There upstream's module has another name, and is not patched itself."""
    write_volumes(tmp_path)
    train = write_config(tmp_path / "train.yml", training_config(tmp_path, OURS))
    assert forked.run("python", "-m", "pytorch3dunet.train", "--config", train).returncode == 0
    config = merged(prediction_config(tmp_path, OURS), {"predictor": {"save_segmentation": True}})
    result = forked.run("python", "-m", "pytorch3dunet.predict", "--config", write_config(tmp_path / "p.yml", config))
    assert result.returncode != 0
    assert "P3D603 segmentation-saved" in result.stderr


def test_no_random_number_is_drawn_and_nothing_is_changed(forked: Preforked, tmp_path: Path) -> None:
    write_config(tmp_path / "train.yml", merged(training_config(tmp_path, UPSTREAMS), WRONG))
    forked.check(f"""
        import copy, logging, random
        import numpy, torch, yaml
        import pytorch3dunet.train
        from pytorch3dunet.augment import transforms
        from p3d_regression.checks.at_start import check_at_start

        config = yaml.safe_load(open({str(tmp_path / "train.yml")!r}))
        states = lambda: [torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate(),
                          transforms.GLOBAL_RANDOM_STATE.get_state()[1].tolist()]
        before, drawn, level = copy.deepcopy(config), states(), logging.root.manager.disable
        check_at_start(config, "train")
        assert config == before
        assert states() == drawn
        assert logging.root.manager.disable == level
    """)
