"""``target_scaling: standardize``: the training labels are measured before a training builds its model."""

import time
from collections.abc import Mapping
from typing import Any

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.components.text import as_yaml
from p3d_regression.errors import ConfigError
from p3d_regression.labels import Statistics, VolumeError, scan
from p3d_regression.scaling.measured import numbers_of
from p3d_regression.scaling.spec import KEY, PLACE, Numbers, check_company, single, spec_of
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
        said = error if isinstance(error, VolumeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{PLACE}: standardize needs to read the labels of loaders.train, and cannot: {said}"
        ) from error
    source = f"loaders.train ({_named([volume.path for volume in volumes])})"
    labels = statistics.channels[: -1 if plan.skips_last_target else None]
    found = numbers_of(labels, plan.targets(channels), source)
    _check_variances(found, plan, channels)
    say(f"target scaling: {source} measured in {time.monotonic() - start:.1f} s")
    return found


def _named(paths: list[str]) -> str:
    return ", ".join(paths) if len(paths) <= 3 else f"{len(paths)} files, {paths[0]} and others"


def _check_variances(found: list[Numbers], plan: Plan, channels: int) -> None:
    """Refuse a loss that takes no variance as small as those of the labels."""
    for channel, least in plan.least_variances(channels).items():
        if found[channel].std < 1000 * least:
            raise ConfigError(
                f"loss.eps: {least:g} is the smallest variance that the loss takes, and the labels have the variance "
                f"{found[channel].std:.3g}: the predicted variances would be wrong. Write:\n  loss:\n"
                f"    eps: {as_yaml(single(found[channel].std * 1e-6))}"
            )
