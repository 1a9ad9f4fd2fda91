"""Whether higher scores are better: said by the metric, where a config that uses this project does not say it."""

from collections.abc import Mapping
from typing import Any

from p3d_regression.errors import ConfigError
from p3d_regression.training.plan import Plan

_KEY = "eval_score_higher_is_better"


def settled(config: Mapping[str, Any], plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """Return a config with what it leaves out about the direction of its metric, and which lines these are.

    What the config says stays; that it contradicts the metric is for the rules to find.

    Raises:
        ConfigError: neither the config nor the metric says which direction is better.
    """
    changed = dict(config)
    trainer, scheduler = config.get("trainer"), config.get("lr_scheduler")
    if not isinstance(trainer, Mapping):
        return changed, []
    lines: list[str] = []
    # what is said once is meant for both lines
    better = bool(trainer[_KEY]) if _KEY in trainer else plan.higher_is_better
    if better is None:
        raise ConfigError(
            f"eval_metric.name: {plan.metric_name} does not say whether higher is better, and best_checkpoint would "
            f"be chosen at random. Write:\n  trainer:\n    {_KEY}: true  # or false"
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
