"""Metrics against torchmetrics, scikit-learn and scikit-image on everything at once; and upstream's running average."""

import math
from typing import Any

import numpy as np
import pytest
import skimage.metrics
import sklearn.metrics
import torch
import torchmetrics
from torch import Tensor

from p3d_regression.errors import ConfigError
from p3d_regression.losses.mask import Mask
from p3d_regression.metrics.registry import registry
from p3d_regression.metrics.score import Accumulated, Running, Score, resolve, try_on

METRICS = [registration.component for registration in registry().registrations()]
ON_VOXELS = [metric.name for metric in METRICS if metric.on == "voxels"]

#: (N, C, D, H, W): seven patches, shown in batches of three, three and one.
SHAPE = (7, 2, 3, 8, 8)


def section_of(name: str) -> dict[str, Any]:
    registration = registry().get(name, "here")
    assert registration is not None
    return {"name": name, **registration.component.example}


def volumes(*, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Predictions and labels in single precision, positive, and alike."""
    generator = torch.Generator().manual_seed(1)
    label = torch.rand(SHAPE, generator=generator) * torch.linspace(0.2, 2.0, 7).reshape(7, 1, 1, 1, 1) + 0.1
    output = 0.8 * label + 0.2 * torch.rand(SHAPE, generator=generator)
    return output + offset, label + offset


def shown(score: Score, output: Tensor, label: Tensor) -> float:
    """The metric as upstream ends up with it."""
    from pytorch3dunet.unet3d.utils import RunningAverage

    average = RunningAverage()
    score.begin()
    for first in range(0, len(output), 3):
        batch = slice(first, first + 3)
        average.update(score(output[batch], label[batch]).item(), len(label[batch]))
    value = float(average.avg)
    assert f"{average.avg}" == str(average.avg) == str(value)
    assert f"{average.avg:.3f}" == f"{value:.3f}"
    score.end()
    return value


def at_once(name: str, output: Tensor, label: Tensor) -> float:
    """Torchmetrics' own of all voxels of a channel."""
    found = resolve(section_of(name))
    metric: Any = found.component.build(**found.arguments)
    if hasattr(metric, "set_dtype"):
        metric.set_dtype(torch.float64)
    metric.update(output.double(), label.double())
    return float(metric.compute())


@pytest.mark.parametrize("name", ON_VOXELS)
@pytest.mark.parametrize("masked", [False, True])
def test_over_batches_it_is_the_metric_of_everything(name: str, masked: bool) -> None:
    output, label = volumes()
    if masked:
        label[torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) < 0.3] = math.nan
        label[0] = math.nan  # a batch may hold patches without a label
    value = shown(Score(resolve(section_of(name)), Mask(math.nan) if masked else None), output, label)
    channels = [(output[:, c].flatten(), label[:, c].flatten()) for c in range(SHAPE[1])]
    values = [at_once(name, x[~y.isnan()], y[~y.isnan()]) for x, y in channels]
    assert value == pytest.approx(np.mean(values), rel=1e-6)
    assert len(set(values)) == 2


def flat(name: str, function: Any) -> Any:
    return pytest.param(name, function, id=name)


OTHERS = [
    flat("MeanSquaredError", sklearn.metrics.mean_squared_error),
    flat("RMSE", sklearn.metrics.root_mean_squared_error),
    flat("MeanAbsoluteError", sklearn.metrics.mean_absolute_error),
    flat("R2Score", sklearn.metrics.r2_score),
    flat("ExplainedVariance", sklearn.metrics.explained_variance_score),
    flat("MeanAbsolutePercentageError", sklearn.metrics.mean_absolute_percentage_error),
    flat("MeanSquaredLogError", sklearn.metrics.mean_squared_log_error),
    flat("TweedieDevianceScore", lambda y, x: sklearn.metrics.mean_tweedie_deviance(y, x, power=0)),
    flat("PearsonCorrCoef", lambda y, x: np.corrcoef(y, x)[0, 1]),
    flat("PeakSignalNoiseRatio", lambda y, x: skimage.metrics.peak_signal_noise_ratio(y, x, data_range=1.0)),
    flat("NormalizedRootMeanSquaredError", lambda y, x: np.sqrt(np.mean((y - x) ** 2)) / y.mean()),
]


@pytest.mark.parametrize(("name", "function"), OTHERS)
@pytest.mark.parametrize("offset", [0.0, 5000.0])
def test_it_is_what_other_libraries_say(name: str, function: Any, offset: float) -> None:
    """Also far from zero, where sums of squares in single precision have no digit left."""
    output, label = volumes(offset=offset)
    value = shown(Score(resolve(section_of(name))), output, label)
    channels = [(label[:, c].double().numpy().ravel(), output[:, c].double().numpy().ravel()) for c in range(2)]
    assert value == pytest.approx(np.mean([function(y, x) for y, x in channels]), rel=1e-6)


def test_correlation_of_ranks() -> None:
    from scipy import stats

    output, label = volumes()
    value = shown(Score(resolve({"name": "SpearmanCorrCoef"})), output, label)
    channels = [(output[:, c].numpy().ravel(), label[:, c].numpy().ravel()) for c in range(2)]
    assert value == pytest.approx(np.mean([stats.spearmanr(x, y).statistic for x, y in channels]), rel=1e-6)


def test_similarity_of_volumes_in_3d_is_torchmetrics() -> None:
    """And scikit-image's, but for the border of half a window, which that leaves out of the mean."""
    generator = torch.Generator().manual_seed(1)
    label = torch.rand(7, 1, 16, 20, 24, generator=generator, dtype=torch.float64)
    output = 0.8 * label + 0.2 * torch.rand(label.shape, generator=generator, dtype=torch.float64)
    value = shown(Score(resolve({"name": "SSIM", "data_range": 1.0})), output, label)
    full = torchmetrics.functional.image.structural_similarity_index_measure(
        output, label, data_range=1.0, return_full_image=True
    )[1]
    assert value == pytest.approx(float(full.mean()), rel=1e-9)
    theirs = [
        skimage.metrics.structural_similarity(
            y.numpy(), x.numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(output[:, 0], label[:, 0], strict=True)
    ]
    assert float(full[..., 5:-5, 5:-5, 5:-5].mean()) == pytest.approx(np.mean(theirs), rel=1e-9)


def test_flat_patches_are_compared_in_2d() -> None:
    generator = torch.Generator().manual_seed(1)
    label = torch.rand(4, 1, 1, 32, 32, generator=generator)
    output = 0.9 * label
    value = shown(Score(resolve({"name": "SSIM", "data_range": 1.0})), output, label)
    plain = torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1.0).set_dtype(torch.float64)
    plain.update(output[:, :, 0].double(), label[:, :, 0].double())
    assert value == pytest.approx(float(plain.compute()), rel=1e-9)


def test_a_mean_over_batches_would_be_another_number() -> None:
    """What this is for: the average of R2 over batches is not R2."""
    output, label = volumes()
    batches = [slice(0, 3), slice(3, 6), slice(6, 7)]
    alone = Score(resolve({"name": "R2Score"}))
    averaged = sum(float(alone(output[b], label[b]).item()) * len(label[b]) for b in batches) / 7
    assert abs(averaged - shown(alone, output, label)) > 0.01


def test_left_alone_it_is_the_metric_of_a_batch() -> None:
    output, label = volumes()
    score = Score(resolve({"name": "MAE"}))
    first, second = score(output, label).item(), score(output + 1, label).item()
    batches = [score(output + shift, label) for shift in (0, 1)]
    assert float(sum(batches) / 2) == pytest.approx((first + second) / 2)
    assert isinstance(first, float)
    assert first == pytest.approx(float((output - label).abs().mean()))
    assert second == pytest.approx(float((output + 1 - label).abs().mean()))


def test_a_validation_inside_of_an_epoch_leaves_the_epoch_alone() -> None:
    output, label = volumes()
    score = Score(resolve({"name": "MAE"}))
    score.begin()
    running = score(output, label).item()
    score.begin()
    inside = score(output + 1, label).item()
    assert float(inside) == pytest.approx(float((output + 1 - label).abs().mean()))
    score.end()
    assert float(score(output, label).item()) == pytest.approx(float((output - label).abs().mean()))
    assert float(running) == pytest.approx(float((output - label).abs().mean()))


def test_half_of_the_output_may_predict_nothing() -> None:
    output, label = volumes()
    with_variance = torch.cat([output, torch.full_like(output, 9.0)], dim=1)
    score = Score(resolve({"name": "MAE"}), predicted=lambda channels: list(range(channels // 2)))
    assert shown(score, with_variance, label) == shown(Score(resolve({"name": "MAE"})), output, label)


def test_nothing_that_counts_is_nan_and_no_error() -> None:
    output, label = volumes()
    for name in ON_VOXELS:
        score = Score(resolve(section_of(name)), Mask(math.nan))
        assert math.isnan(shown(score, output, torch.full_like(label, math.nan)))
    one = torch.full_like(label, math.nan)
    one[:, :, 0, 0, 0] = math.nan
    one[0, :, 0, 0, 0] = 1.0
    assert math.isnan(shown(Score(resolve({"name": "R2Score"}), Mask(math.nan)), output, one))


def test_no_gradient_and_no_graph_is_kept() -> None:
    output, label = volumes()
    accumulated = Accumulated(resolve({"name": "SpearmanCorrCoef"}), None)
    accumulated.add(output.requires_grad_(), label)
    (metric,) = accumulated._channels[:1]
    assert all(not part.requires_grad for part in metric.preds)  # type: ignore[attr-defined]


def test_upstreams_average_keeps_it_whatever_it_does_with_it() -> None:
    accumulated = Accumulated(resolve({"name": "MAE"}), None)
    accumulated.add(*volumes())
    running = Running(accumulated)
    assert 0 + running * 3 is running
    assert (running + running) / 7 is running
    assert running.item() is running


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ({"name": "R2Skore"}, ["eval_metric.name: 'R2Skore'", "did you mean R2Score?", "p3d-regression metrics"]),
        ({"name": "PSNR"}, ["lacks the argument data_range", "data_range: 1.0"]),
        ({"name": "SSIM"}, ["lacks the argument data_range"]),
        ({"name": "PSNR", "data_range": None}, ["data_range: None is not a number"]),
        ({"name": "MSE", "num_outputs": 2}, ["eval_metric.num_outputs", "each channel has a metric of its own"]),
        ({"name": "NRMSE", "normalization": "medium"}, ["cannot be computed", "medium"]),
        ({"name": "LPIPS"}, ["is not a known metric"]),
        ({"name": "LearnedPerceptualImagePatchSimilarity"}, ["cannot be a metric", "trained network"]),
        ({"name": "KendallRankCorrCoef"}, ["cannot be a metric", "every voxel with every other one"]),
        ({"name": "KLDivergence"}, ["cannot be a metric", "one by one"]),
        ({}, ["eval_metric: {} has no name"]),
    ],
)
def test_what_is_wrong_is_named_with_key_value_and_fix(section: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        try_on(resolve(section), (4, 16, 16))
    for part in parts:
        assert part in str(caught.value)


def test_patches_that_are_too_small_for_a_metric_are_found_before_training() -> None:
    with pytest.raises(
        ConfigError, match=r"of patches of 4 x 64 x 64 voxels: 4 voxels in Z .* sigma: \[0.4, 1.5, 1.5\]"
    ):
        try_on(resolve({"name": "SSIM", "data_range": 1.0}), (4, 64, 64))
    try_on(resolve({"name": "SSIM", "data_range": 1.0, "sigma": [0.5, 1.5, 1.5]}), (4, 64, 64))


def test_two_bounds_are_no_range() -> None:
    """Torchmetrics clips predictions to them: a hopeless one would be perfect."""
    with pytest.raises(ConfigError, match="is not a number"):
        resolve({"name": "PSNR", "data_range": [0, 255]})
    with pytest.raises(ConfigError, match="data_range must be above 0"):
        try_on(resolve({"name": "SSIM", "data_range": 0}), (16, 64, 64))
    try_on(resolve({"name": "PSNR", "data_range": 1e-7}), (16, 64, 64))


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("name", ["R2Score", "PearsonCorrCoef", "ExplainedVariance", "RelativeSquaredError", "NRMSE"])
def test_the_units_of_the_labels_do_not_matter(name: str, scale: float) -> None:
    """Torchmetrics' R2 of labels in metres, where they are micrometres, is 1 whatever is predicted."""
    output, label = volumes()
    score = Score(resolve({"name": name}))
    plain = shown(score, output.double(), label.double())
    assert shown(score, output.double() * scale, label.double() * scale) == pytest.approx(plain, rel=1e-6)
    assert name == "R2Score" or abs(plain) < 2


def test_constant_labels_have_no_r2() -> None:
    output, label = volumes()
    assert math.isnan(shown(Score(resolve({"name": "R2Score"})), output, torch.full_like(label, 0.1)))
    adjusted = shown(Score(resolve({"name": "R2Score", "adjusted": 3})), output, label)
    plain: Any = torchmetrics.R2Score(adjusted=3).set_dtype(torch.float64)
    values = []
    for channel in (0, 1):
        plain.reset()
        plain.update(output[:, channel].flatten().double(), label[:, channel].flatten().double())
        values.append(float(plain.compute()))
    assert adjusted == pytest.approx(np.mean(values), rel=1e-9)


def test_every_direction_is_known() -> None:
    assert {metric.name for metric in METRICS if metric.higher_is_better is None} == set()
    assert resolve({"name": "Pearson"}).component.higher_is_better is True
    assert resolve({"name": "RMSE"}).component.higher_is_better is False


def test_the_table_is_plain_data_and_its_examples_work() -> None:
    import json

    table = json.loads(json.dumps(registry().rows()))
    for row in table:
        resolve(row["example"])
    (spearman,) = [row for row in table if row["name"] == "SpearmanCorrCoef"]
    assert spearman["keeps_voxels"] is True
    (ssim,) = [row for row in table if row["name"] == "StructuralSimilarityIndexMeasure"]
    assert ssim["ignores"] is False
    assert ssim["arguments"][0] == {
        "name": "data_range",
        "kind": "a number",
        "required": True,
        "default": None,
    }
