"""Whether higher scores are better: taken from the metric, where a config that uses this project does not say it."""

from collections.abc import Mapping
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.fix import write
from p3d_regression.training.plan import Plan

_KEY = "eval_score_higher_is_better"


def with_direction(config: Mapping[str, Any], plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """Return a config with the missing lines about the direction of its metric, and a list of them.

    Lines of the config stay, also where they contradict the metric: a rule finds that.

    Raises:
        ConfigError: neither the config nor the metric says which direction is better.
    """
    changed = dict(config)
    trainer, scheduler = config.get("trainer"), config.get("lr_scheduler")
    if not isinstance(trainer, Mapping):
        return changed, []
    lines: list[str] = []
    # a config that has one of the two lines means it for both
    better = bool(trainer[_KEY]) if _KEY in trainer else plan.higher_is_better
    if better is None:
        raise ConfigError(
            "eval_metric.name",
            f"{plan.metric_name} does not declare whether a higher score is better: the choice of best_checkpoint "
            "would be arbitrary.",
            write(f"trainer.{_KEY}", True, "or false"),
        )
    if _KEY not in trainer:
        changed["trainer"] = {**trainer, _KEY: better}
        lines.append(f"trainer.{_KEY}: {str(better).lower()}")
    is_plateau = isinstance(scheduler, Mapping) and scheduler.get("name") == "ReduceLROnPlateau"
    if isinstance(scheduler, Mapping) and is_plateau and "mode" not in scheduler:
        mode = "max" if better else "min"
        changed["lr_scheduler"] = {**scheduler, "mode": mode}
        lines.append(f"lr_scheduler.mode: {mode}")
    return changed, lines
