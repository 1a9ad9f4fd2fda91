"""``predictor.performance_metric``: the score of each volume at the end of its prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.evaluation.pairs import Pair, Source
from p3d_regression.evaluation.run import ignored_label, run
from p3d_regression.evaluation.volume import Scope
from p3d_regression.fix import write
from p3d_regression.metrics import score
from p3d_regression.metrics.registry import registry
from p3d_regression.model.contract import mapping
from p3d_regression.prediction.files import output_path
from p3d_regression.prediction.spec import format_of
from p3d_regression.upstream.log import say

METRIC = "predictor.performance_metric"
TRUTH = "predictor.gt_internal_path"


@dataclass(frozen=True)
class Scoring:
    """What a ``predictor`` section asks for.

    Attributes:
        metric: its name.
        key: of the truth in the input files.
    """

    metric: str
    key: str

    @classmethod
    def of(cls, metric: object, key: object) -> "Scoring":
        """Look the metric up, before anything is predicted.

        Raises:
            ConfigError: it is not known, compares patches, or the truth is not named.
        """
        registration = registry().get(metric, METRIC) if isinstance(metric, str) else None
        if registration is not None and registration.component.on == "patches":
            message = f"{metric} compares patches, not voxels; `p3d-regression evaluate` computes SSIM."
            raise ConfigError(METRIC, message, write(METRIC, "R2Score"))
        try:
            score.resolve({"name": metric})
        except ConfigError as error:
            message = f"{error.found.message} pytorch-3dunet itself has dice and mean_iou."
            raise ConfigError(METRIC, message, write(METRIC, "R2Score")) from error
        if not isinstance(key, str) or not key:
            message = f"is missing, the dataset of the truth in the input files, which {metric} needs."
            raise ConfigError(TRUTH, message, write(TRUTH, "label"))
        return cls(str(metric), key)

    def score(self, predictor: Any, loader: Any, config: Mapping[str, Any]) -> list[float]:
        """Score the prediction of a volume, which is complete; one number for each channel.

        Raises:
            EvaluationError: it cannot be compared with the truth.
        """
        source = Path(loader.dataset.file_path)
        path = output_path(source, predictor.output_dir, format_of(mapping(config.get("predictor"))))
        predicted = Source.open(path, predictor.output_dataset)
        raw = Source.open(source, loader.dataset.raw_internal_path)
        pair = Pair(predicted, Source.open(source, self.key), raw).check()
        scope = Scope(ignored=ignored_label(config), ssim=False)
        found = run([pair], scope, lambda _: lambda _: None, config=config, metrics=[self.metric])
        values = list(found.more[self.metric])
        listed = ", ".join(f"{value:.6g}" for value in values)
        say(f"{source.name}: {self.metric} {listed}; {found.verdict}")
        return values
