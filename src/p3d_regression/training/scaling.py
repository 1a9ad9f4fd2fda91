"""Target scaling in a training: labels are measured before the model is built, gradients are of standardised size."""

import time
from collections.abc import Mapping
from typing import Any

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.errors import ConfigError
from p3d_regression.fix import delete
from p3d_regression.labels.scan import Statistics, VolumeError, scan
from p3d_regression.model.memory import Memory
from p3d_regression.model.unet import is_attached, memory_of
from p3d_regression.scaling.measured import check_variances, numbers_of
from p3d_regression.scaling.spec import KEY, PLACE, Numbers, check_company
from p3d_regression.scaling.target import scaling_of, spec_for
from p3d_regression.training.plan import Plan
from p3d_regression.upstream import datasets
from p3d_regression.upstream.log import console, say

#: Share of the gradient below which a channel is hardly learnt.
_LEAST_SHARE = 0.01


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
    final = resolve(model[ACTIVATION], channels)
    spec = spec_for(model, final)
    if spec is None or not spec.is_measured or (isinstance(trainer, Mapping) and trainer.get("resume") is not None):
        return config
    if reason := plan.units_differ(channels):
        raise ConfigError(
            PLACE,
            f"standardize needs a loss that compares outputs and labels in one unit; {reason}. Numbers, "
            "{mean: ..., std: ...}, can be used with any loss.",
            delete(PLACE),
        )
    scaling = scaling_of(spec, final, _measured(config, plan, channels))
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
            PLACE, f"standardize needs to read the labels of loaders.train, and cannot: {said}"
        ) from error
    source = f"loaders.train ({_named([volume.path for volume in volumes])})"
    labels = statistics.channels[: -1 if plan.skips_last_target else None]
    found = numbers_of(labels, plan.targets(channels), source)
    check_variances(found, plan.least_variances(channels))
    say(f"target scaling: {source} measured in {time.monotonic() - start:.1f} s")
    return found


def _named(paths: list[str]) -> str:
    return ", ".join(paths) if len(paths) <= 3 else f"{len(paths)} files, {paths[0]} and others"


def of_model(trainer: Any) -> Memory | None:
    """What the model of a trainer of pytorch-3dunet is made of, if its output is scaled."""
    model = getattr(trainer, "model", None)
    model = getattr(model, "module", model)
    memory = memory_of(model) if is_attached(model) else None
    return memory if memory and memory.scaling else None


def gradient_factor(trainer: Any, plan: Plan) -> float | None:
    """By what the gradient of the loss is multiplied, so that steps are those of standardised labels.

    Args:
        trainer: that of pytorch-3dunet.
        plan: of the training.

    Returns:
        None where the output is not scaled, or the loss cannot be tried.
    """
    memory = of_model(trainer)
    if memory is None or memory.scaling is None:
        return None
    from p3d_regression.scaling.gradient import gradient_size

    targets = plan.targets(memory.final.channels)
    more = int(plan.skips_last_target)
    trial = gradient_size(
        trainer.loss_criterion,
        memory.scaling,
        memory.final.ranges,
        targets,
        loss=plan.described,
        mask=plan.mask,
        more_labels=more,
    )
    if trial is None:
        console().warning(
            "the size of the gradient with target_scaling could not be determined for this loss: choose learning rate "
            "and weight decay for the units of the labels"
        )
        return None
    say(f"gradients are multiplied by {trial.factor:.6g}: as large as if the labels were standardised")
    small = [str(channel) for channel, share in enumerate(trial.shares) if share < _LEAST_SHARE]
    if small:
        console().warning(
            f"output channel {' and '.join(small)} has less than {_LEAST_SHARE:.0%} of the gradient: in the units of "
            "the labels its errors are far smaller than those of the other channels, and it will hardly be learnt. "
            "Give each channel a loss of its own, with a weight: loss.name: channelwise (docs/losses-and-metrics.md)"
        )
    return trial.factor
