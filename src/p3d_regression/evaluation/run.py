"""All volumes of an evaluation, and what is said about them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from p3d_regression._version import __version__
from p3d_regression.errors import ConfigError, EvaluationError
from p3d_regression.evaluation import baselines, calibration
from p3d_regression.evaluation.pairs import Pair
from p3d_regression.evaluation.scores import listed, merged, over_volumes, single
from p3d_regression.evaluation.statistics import Channel
from p3d_regression.evaluation.volume import Result, Scope, evaluate, ranges_of
from p3d_regression.model.contract import trained_with
from p3d_regression.upstream import checkpoints


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        results: of the volumes.
        pooled: all voxels of all volumes, per channel.
        guesses: without a network, on the same voxels.
        is_better: than each of them.
        verdict: in words.
        fits: per channel, what makes the standard deviations fit; None where nothing was fitted.
        more: scores of further metrics by name, one for each channel.
        config: of the prediction; None where files were named.
    """

    results: Sequence[Result]
    pooled: Sequence[Channel]
    guesses: Sequence[baselines.Guess]
    is_better: bool
    verdict: str
    fits: Sequence[calibration.Fit | None]
    more: Mapping[str, Sequence[float]] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON: scores by the names of ``p3d-regression metrics``, a number for one channel, a list for several."""
        more = {name: single(values) for name, values in self.more.items()}
        calibrated = [calibration.summary(c, f) for c, f in zip(self.pooled, self.fits, strict=True)]
        found = {
            "verdict": self.verdict,
            "is_better": self.is_better,
            "baselines": {guess.name: {"MSE": single(guess.mse), "RMSE": single(guess.rmse)} for guess in self.guesses},
            "pooled": listed(self.pooled) | more,
            "over_volumes": over_volumes([result.channels for result in self.results]),
            "volumes": [_of_volume(result) for result in self.results],
            "version": __version__,
        }
        return found | ({"calibration": single(calibrated)} if any(calibrated) else {})


def _of_volume(result: Result) -> dict[str, Any]:
    return {
        "name": result.pair.name,
        "prediction": str(result.pair.prediction),
        "truth": str(result.pair.truth),
        "voxels": int(result.channels[0].pairs.count),
        **listed(result.channels),
        "seam": result.seam,
        "worst": [{"RMSE": math.sqrt(mse), "corner": list(corner)} for mse, corner in result.worst],
    }


#: Called with the number of planes that were read; asked for once with that of all.
Progress = Callable[[int], Callable[[int], None]]


def run(
    pairs: Sequence[Pair],
    scope: Scope,
    progress: Progress,
    *,
    config: Mapping[str, Any] | None = None,
    fitted_on: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> Evaluation:
    """Compare all volumes with the truth.

    Args:
        pairs: of predictions and truth.
        scope: which voxels count.
        progress: told of each plane.
        config: of the prediction, if there is one.
        fitted_on: names of volumes that the standard deviations are fitted to, and that are not scored.
        metrics: names of further metrics.

    Raises:
        EvaluationError: they do not fit each other, hold NaN, or a metric is not known.
    """
    names = [pair.name for pair in pairs]
    if unknown := [name for name in fitted_on if name not in names]:
        raise EvaluationError(f"--calibrate {unknown[0]} is none of the volumes {', '.join(names)}.")
    scored = [pair for pair in pairs if pair.name not in fitted_on]
    if not scored:
        raise EvaluationError("--calibrate names all volumes, and none is left to be scored.")
    if len({len(pair.means) for pair in pairs}) > 1:
        raise EvaluationError("the predictions have different numbers of channels.")
    with_std = [pair for pair in pairs if pair.variances or pair.spread is not None]
    if fitted_on and len(with_std) < len(pairs):
        raise EvaluationError("--calibrate needs predictions with a variance or a spread.")
    tick = progress(sum(pair.truth.spatial[0] for pair in pairs))
    # the similarity needs the range of all before the first
    found = [ranges_of(pair, scope) for pair in scored] if scope.ssim else []
    ranges = [max(values) for values in zip(*found, strict=True)]
    more = _Metrics(metrics) if metrics else None
    others = [evaluate(pair, scope, [], tick) for pair in pairs if pair.name in fitted_on]
    fits: list[calibration.Fit | None] = [None] * len(scored[0].means)
    if others:
        of_others = merged([result.channels for result in others])
        fits = [calibration.fit(c.calibration, fitted_on) if c.calibration else None for c in of_others]
    results = [evaluate(pair, scope, ranges, tick, more.add if more else None) for pair in scored]
    pooled = merged([result.channels for result in results])
    guesses = baselines.guesses(pooled, baselines.training_means(config) if config else None)
    is_better, verdict = baselines.verdict(pooled, guesses)
    return Evaluation(results, pooled, guesses, is_better, verdict, fits, more.values if more else {}, config)


def ignored_label(config: Mapping[str, Any]) -> float | None:
    """The label of voxels that did not count in the training of a config's checkpoint."""
    try:
        path = checkpoints.checkpoint_of(config, "predict")
        trained = trained_with(path, checkpoints.checkpoint_metadata(path)) if path else None
    except Exception:
        return None  # a prediction can be scored without its checkpoint
    return trained.contract.ignore_index if trained else None


class _Metrics:
    """Metrics by name, shown piece by piece."""

    def __init__(self, names: Sequence[str]) -> None:
        from p3d_regression.metrics import score

        self._metrics = {}
        for name in names:
            try:
                metric = self._metrics[name] = score.resolve({"name": name})
            except ConfigError as error:
                raise EvaluationError(f"--metric {name}: {error.found.message}") from error
            if metric.component.on == "patches":
                raise EvaluationError(f"--metric {name}: it compares patches, not voxels; SSIM is always computed.")
        self._running: dict[str, list[Any]] = {name: [] for name in names}

    def add(self, channel: int, prediction: Any, truth: Any, counts: Any) -> None:
        import torch

        for name, metric in self._metrics.items():
            running = self._running[name]
            while len(running) <= channel:
                built = metric.component.build(**metric.arguments)
                running.append(built.set_dtype(torch.float64) if hasattr(built, "set_dtype") else built)
            if counts.any():
                running[channel].update(torch.from_numpy(prediction[counts]), torch.from_numpy(truth[counts]))

    @property
    def values(self) -> dict[str, list[float]]:
        return {name: [float(metric.compute()) for metric in running] for name, running in self._running.items()}
