"""Where torchmetrics cannot be imported: what is the project's own works, the rest is one error that says why."""

import math
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from p3d_regression.errors import ConfigError
from p3d_regression.losses.mask import Mask
from p3d_regression.metrics import of_torchmetrics
from p3d_regression.metrics.registry import registry
from p3d_regression.metrics.score import Accumulated, resolve
from p3d_regression.training.plan import plan_of

BROKEN = "RuntimeError: operator torchvision::nms does not exist"

SECTIONS: list[dict[str, Any]] = [
    {"name": "R2Score"},
    {"name": "SSIM", "data_range": 1.0},
    {"name": "RMSE"},
    {"name": "MSE"},
    {"name": "MSE", "squared": False},
    {"name": "MAE"},
    {"name": "PSNR", "data_range": 3.0},
    {"name": "PeakSignalNoiseRatio", "data_range": 0.5, "base": 2.0},
]


def values(section: dict[str, Any]) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    labels = [torch.rand(2, 2, 12, 12, 12, generator=generator) for _ in range(3)]
    mask = None if section["name"] == "SSIM" else Mask(math.nan)
    accumulated = Accumulated(resolve(section), mask)
    for label in labels:
        output = 0.9 * label + 0.02
        if mask:
            label[:, :, 0] = math.nan
        accumulated.add(output, label)
    return accumulated.values


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(of_torchmetrics, "torchmetrics_error", lambda: BROKEN)
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_the_numbers_are_those_of_torchmetrics(section: dict[str, Any], request: pytest.FixtureRequest) -> None:
    wanted = values(section)
    request.getfixturevalue("broken")
    # torchmetrics takes the logarithm in single precision
    assert values(section) == pytest.approx(wanted, rel=1e-6 if "data_range" in section else 1e-12)
    assert resolve(section).component.higher_is_better is (section["name"] not in ("MSE", "MAE", "RMSE"))


@pytest.mark.usefixtures("broken")
class TestWithoutIt:
    def test_a_masked_training_has_a_metric(self) -> None:
        config = {"loss": {"name": "MSELoss", "ignore_index": -1}, "eval_metric": {"name": "MSE"}}
        assert str(plan_of(config, model_is_ours=True).metric) == "MeanSquaredError"

    @pytest.mark.parametrize("name", ["PearsonCorrCoef", "nrmse", "LPIPS"])
    def test_the_others_are_one_error_with_its_cause_and_what_to_do(self, name: str) -> None:
        with pytest.raises(ConfigError) as caught:
            plan_of({"loss": {"name": "MSELoss"}, "eval_metric": {"name": name}}, model_is_ours=True)
        assert caught.value.found.key == "eval_metric.name"
        assert repr(name) in caught.value.found.message
        assert BROKEN in caught.value.found.message
        assert "pip uninstall torchvision" in str(caught.value.found.fix)

    def test_an_argument_of_the_projects_own_is_refused_as_ever(self) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve({"name": "SSIM", "data_range": "wide"})
        assert "torchvision" not in str(caught.value)


def test_a_torchvision_that_does_not_fit_torch(tmp_path: Path) -> None:
    """The real import, in a new interpreter."""
    (tmp_path / "torchvision").mkdir()
    line = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
    (tmp_path / "torchvision" / "__init__.py").write_text(line)
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from pytorch3dunet.unet3d.metrics import get_evaluation_metric
        from p3d_regression.errors import ConfigError
        from p3d_regression.metrics.of_torchmetrics import torchmetrics_error

        print(torchmetrics_error())
        for section in ({{"name": "R2Score"}}, {{"name": "SSIM", "data_range": 1.0}}, {{"name": "RMSE"}}):
            print(get_evaluation_metric({{"eval_metric": section}}))
        masked = {{"name": "MSELoss", "ignore_index": float("nan")}}
        print(get_evaluation_metric({{"eval_metric": {{"name": "MSE"}}, "loss": masked}}))
        try:
            get_evaluation_metric({{"eval_metric": {{"name": "Pearson"}}}})
        except ConfigError as error:
            print(error)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    error, *built, refusal = result.stdout.splitlines()
    assert error == BROKEN
    assert built == [
        "R2Score",
        "{name: StructuralSimilarityIndexMeasure, data_range: 1.0}",
        "RMSE",
        "MeanSquaredError, without voxels labelled NaN",
    ]
    assert "'Pearson'" in refusal
    assert BROKEN in refusal
