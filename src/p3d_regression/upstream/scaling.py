"""``target_scaling: standardize``: the training labels are measured before a training builds its model."""

import time
from collections.abc import Mapping
from typing import Any

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.errors import ConfigError
from p3d_regression.labels import Statistics, scan
from p3d_regression.scaling.measured import numbers_of
from p3d_regression.scaling.spec import KEY, PLACE, Numbers, check_company, spec_of
from p3d_regression.scaling.target import check, settled
from p3d_regression.upstream import datasets
from p3d_regression.upstream.plan import Plan
from p3d_regression.upstream.unet import say


def with_numbers(config: Mapping[str, Any], plan: Plan) -> Mapping[str, Any]:
    """Return the config of a training with numbers in place of ``standardize``.

    One that is resumed stays as it is: its checkpoint brings them.

    Args:
        config: of a training; it stays as it is.
        plan: of the same.

    Raises:
        ConfigError: the labels cannot be measured, or the loss does not compare outputs and labels in one unit.
    """
    from p3d_regression.activations.registry import resolve

    model, trainer = config.get("model"), config.get("trainer")
    channels = model.get("out_channels") if isinstance(model, Mapping) else None
    if not (isinstance(model, Mapping) and KEY in model and isinstance(channels, int) and channels > 0):
        return config
    check_company(model)
    spec, final = spec_of(model, channels), resolve(model[ACTIVATION], channels)
    assert spec is not None
    check(spec, final)
    if not spec.is_measured or (isinstance(trainer, Mapping) and trainer.get("resume") is not None):
        return config
    if reason := plan.units_differ(channels):
        raise ConfigError(
            f"{PLACE}: standardize needs a loss that compares outputs and labels in one unit; {reason}. Delete the "
            f"line {KEY}, or write the numbers that it should have: {{mean: ..., std: ...}}."
        )
    scaling = settled(spec, final, _measured(config, plan, channels))
    return config if scaling is None else {**config, "model": {**model, KEY: scaling.plain}}


def _measured(config: Mapping[str, Any], plan: Plan, channels: int) -> list[Numbers]:
    start = time.monotonic()
    statistics = Statistics()
    say(f"target scaling: measuring the labels of loaders.train for {PLACE}: standardize ...")
    try:
        volumes = datasets.label_volumes(config["loaders"], "train")
        scan(volumes, [], statistics, lambda voxels: None, plan.mask.of_array if plan.mask else None)
    except Exception as error:
        raise ConfigError(
            f"{PLACE}: standardize needs to read the labels of loaders.train, and cannot: {error}"
        ) from error
    source = f"loaders.train ({len(volumes)} file{'s' * (len(volumes) != 1)})"
    labels = statistics.channels[: -1 if plan.skips_last_target else None]
    found = numbers_of(labels, plan.targets(channels), source)
    say(f"target scaling: {source} measured in {time.monotonic() - start:.1f} s")
    return found
