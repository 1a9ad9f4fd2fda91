"""Target scaling in a training: labels are measured before the model is built, gradients are of standardised size."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.errors import ConfigError
from p3d_regression.fix import Fix, advise, delete, write
from p3d_regression.labels.linear import Pairs, RawAndLabels
from p3d_regression.labels.scan import Statistics, VolumeError, scan
from p3d_regression.model.memory import Memory
from p3d_regression.model.unet import is_attached, memory_of
from p3d_regression.scaling.line import line_of
from p3d_regression.scaling.measured import check_variances, numbers_of
from p3d_regression.scaling.spec import KEY, PLACE, Spec, check_company, spec_of
from p3d_regression.scaling.target import scaling_of, spec_for
from p3d_regression.scaling.terms import IDENTITY, Follow, Numbers, Term
from p3d_regression.text import as_yaml
from p3d_regression.training.plan import Plan
from p3d_regression.training.raw_transforms import check_raw_transforms
from p3d_regression.upstream import datasets, samples
from p3d_regression.upstream.log import console, say

#: Output channels that are compared with the raw volume.
_MOST_CHANNELS = 256

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
            f"{as_yaml(spec.plain)} needs a loss that compares outputs and labels in one unit; {reason}. Numbers, "
            "{mean: ..., std: ...}, can be used with any loss.",
            delete(PLACE),
        )
    measured: list[Term] = [*_standardized(config, plan, channels)] if None in spec.terms else [IDENTITY] * channels
    if spec.follows_raw:
        measured = _following(config, plan, spec, measured)
    scaling = scaling_of(spec, final, measured)
    return config if scaling is None else {**config, "model": {**model, KEY: scaling.plain}}


def _following(config: Mapping[str, Any], plan: Plan, spec: Spec, others: list[Term]) -> list[Term]:
    """The terms of the channels that follow the raw volume, measured; the others as they are."""
    start = time.monotonic()
    check_raw_transforms(config)
    say(f"target scaling: measuring raw volumes and labels of loaders.train for {PLACE}: {as_yaml(spec.plain)} ...")
    try:
        lines = Lines(plan, spec)
        for patch in samples.shown(config["loaders"], "train"):
            lines.add(patch)
    except ConfigError:
        raise
    except Exception as error:
        said = error if isinstance(error, VolumeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(PLACE, f"needs to read the volumes of loaders.train, and cannot: {said}") from error
    terms = [
        lines.term(channel) if isinstance(term, Follow) else other
        for channel, (term, other) in enumerate(zip(spec.terms, others, strict=True))
    ]
    say(f"target scaling: loaders.train measured in {time.monotonic() - start:.1f} s")
    return terms


def could_follow(model: Mapping[str, Any], plan: Plan) -> Spec | None:
    """The output channels that follow the raw volume, or could; None where it is not clear which channel they follow.

    Args:
        model: section of the config.
        plan: of the training.
    """
    channels = model.get("out_channels")
    if not isinstance(channels, int) or isinstance(channels, bool) or not 0 < channels <= _MOST_CHANNELS:
        return None
    try:
        own = spec_of(model, channels)
        spec = own if own is not None and own.follows_raw else spec_of({**model, KEY: "residual"}, channels)
    except ConfigError:
        return None
    terms = [] if spec is None else zip(spec.terms, plan.targets(channels), strict=True)
    return Spec(tuple(IDENTITY if is_variance else term for term, (_, is_variance) in terms))


@dataclass
class Lines:
    """Raw volumes and labels of a training, for each output channel that follows the raw volume.

    Attributes:
        plan: of the training.
        spec: of its target scaling.
        found: by output channel, raw values and labels as the training is shown them.
        of_file: the same with the raw values of the file.
        stored: by output channel, raw values as the network sees them, without random transforms, and of the file.
    """

    plan: Plan
    spec: Spec
    found: dict[int, RawAndLabels] = field(default_factory=dict)
    of_file: dict[int, RawAndLabels] = field(default_factory=dict)
    stored: dict[int, Pairs] = field(default_factory=dict)

    def add(self, patch: samples.Shown) -> None:
        """Take in a patch.

        Raises:
            ConfigError: it does not have the channels.
        """
        raw, calm, label = (channels_first(part) for part in (patch.raw, patch.calm, patch.label))
        targets = self.plan.targets(len(self.spec.terms))
        for channel, term in enumerate(self.spec.terms):
            if not isinstance(term, Follow):
                continue
            target, is_variance = targets[channel]
            if is_variance:
                message = f"output channel {channel} predicts a variance, which does not follow the raw volume."
                raise ConfigError(PLACE, message, _standardizing(self.spec, channel))
            if term.in_channel >= len(raw) or target >= len(label):
                message = f"raw volumes have {len(raw)} channel(s) and labels {len(label)}."
                raise ConfigError(PLACE, message, advise("correct in_channel, model.out_channels or the volumes"))
            counts = None if self.plan.mask is None else self.plan.mask.of_array(label[target])
            self.found.setdefault(channel, RawAndLabels()).add(raw[term.in_channel], label[target], counts)
            pairs = self.stored.setdefault(channel, Pairs())
            if patch.stored is not None:
                seen = calm[term.in_channel].astype(np.float64)
                file = channels_first(patch.stored)[term.in_channel].astype(np.float64)
                if seen.shape == file.shape and np.isfinite(seen).all() and np.isfinite(file).all():
                    pairs.merge(Pairs.of(seen, file))
                    self.of_file.setdefault(channel, RawAndLabels()).add(file, label[target], counts)

    def term(self, channel: int) -> Follow:
        """The term of a channel with its numbers.

        Raises:
            ConfigError: the raw volume does not tell the labels.
        """
        term = self.spec.terms[channel]
        assert isinstance(term, Follow)
        return line_of(term, self.found[channel], self.stored[channel], "loaders.train")


def _standardizing(spec: Spec, channel: int) -> Fix:
    """Standardize one channel, and leave the others as they are."""
    terms = list(spec.terms)
    terms[channel] = None
    return write(PLACE, Spec(tuple(terms)).plain)


def channels_first(patch: Any) -> Any:
    """A patch of shape (D, H, W) as (1, D, H, W)."""
    return patch[None] if patch.ndim == 3 else patch


def _standardized(config: Mapping[str, Any], plan: Plan, channels: int) -> list[Numbers]:
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
