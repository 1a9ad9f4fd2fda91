"""Rules about ``target_scaling``, and about labels that want one."""

from collections.abc import Iterator

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.checks.reading import compared_label_channels
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.model import found_by
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.labels.moments import Moments
from p3d_regression.scaling.measured import numbers_of
from p3d_regression.scaling.spec import IDENTITY, KEY, Numbers, Spec
from p3d_regression.scaling.target import is_bounded_by_zero, scaling_of
from p3d_regression.text import as_yaml

family = Family()

#: Means beyond so many standard deviations, and standard deviations so many times 1, are far from standard.
_FAR = 5.0

#: So are standard deviations below this: those of labels 0..1 are not.
_SMALL = 1 / 50


@family.rule("P3D701", "error", modes=BOTH, raised_by_builder=True)
def target_scaling_not_understood(view: View) -> Iterator[Found]:
    """A value of `target_scaling` that means nothing, the key without `final_activation` beside it, or with one whose
    bounds it would move: what is between two values already has its units, and is written
    `{name: bounded, low: ..., high: ...}`. Training stops with the same message.

    Example:
        model:
          final_activation: sigmoid
          target_scaling: standardize

    Use instead:
        model:
          final_activation: none
          target_scaling: standardize
    """
    if view.scaling_error is not None:
        yield found_by(view.scaling_error)


@family.rule("P3D702", "error", raised_by_builder=True)
def target_scaling_of_other_units(view: View) -> Iterator[Found]:
    """`standardize` brings the output to the units of the labels. Where a loss takes the output for something else,
    such as a logit or the logarithm of a rate, these units are wrong. Numbers of your own, `{mean: ..., std: ...}`, are
    taken as they are.

    Example:
        model:
          final_activation: none
          target_scaling: standardize
        loss:
          name: PoissonNLLLoss

    Use instead:
        model:
          final_activation: softplus
          target_scaling: standardize
        loss:
          name: PoissonNLLLoss
          log_input: false
    """
    if _will_be_measured(view) and view.out_channels and (reason := view.plan.units_differ(view.out_channels)):
        yield Found(f"model.{KEY}", f"{reason}: mean and std of the labels are not those of the output", _DELETE)


_DELETE = f"delete the line {KEY}"


@family.rule("P3D703", "error", needs="volumes")
def target_scaling_cannot_be_measured(view: View) -> Iterator[Found]:
    """Labels that are the same everywhere, that are masked everywhere, or that are not numbers have no standard
    deviation to scale with. Training stops with the same message.

    Example:
        model:
          final_activation: none
          target_scaling: standardize
        loaders:
          label_internal_path: zero

    Use instead:
        model:
          final_activation: none
          target_scaling: standardize
    """
    labels = _labels(view)
    if _will_be_measured(view) and labels is not None and isinstance(measured := _measured(view, labels), ConfigError):
        yield found_by(measured)


@family.rule("P3D704", "warning", needs="volumes")
def labels_far_from_standard(view: View) -> Iterator[Found]:
    """A network starts with outputs around 0, of about the size 1, and learning rates are made for that. Labels with
    a mean or a standard deviation far from it make it learn that offset and that spread first: with upstream's learning
    rate of 0.0002, distances of 12 +- 13 mm are worse than a constant guess after 125 iterations, and a tenth of these
    are enough with `target_scaling`. Loss, scores and predictions stay in the units of the labels. Numbers of your own
    that do not fit the labels are found as well.

    Example:
        model:
          final_activation: none

    Use instead:
        model:
          final_activation: none
          target_scaling: standardize
    """
    labels = _labels(view)
    if labels is None or not view.is_regression or view.final_error or view.scaling_error or _is_measured(view):
        return
    if view.get("trainer.resume") is not None:
        return  # goes on as it began
    measured = _measured(view, labels)
    if isinstance(measured, ConfigError) or not (far := _far(view, labels, measured)):
        return
    lines = f"model:\n  {ACTIVATION}: {view.final or 'none'}\n  {KEY}: {_only(far, measured)}"
    yield Found(f"model.{KEY}", f"the labels of train have {'; '.join(far.values())}", lines)


def _is_measured(view: View) -> bool:
    return view.scaling is not None and view.scaling.is_measured


def _will_be_measured(view: View) -> bool:
    """A training that is resumed has the numbers of its checkpoint."""
    return _is_measured(view) and view.get("trainer.resume") is None


def _labels(view: View) -> list[Moments] | None:
    """Of the channels that the loss sees in training; None if they are not known to the end."""
    phase = view.phases.get("train")
    if phase is None or phase.statistics is None or not phase.statistics.complete:
        return None
    labels = phase.statistics.channels[: compared_label_channels(view, phase.statistics)]
    return labels if len(labels) == view.predicted_label_channels else None


def _measured(view: View, labels: list[Moments]) -> list[Numbers] | ConfigError:
    try:
        return numbers_of(labels, view.plan.targets(view.out_channels or 1), "loaders.train")
    except ConfigError as error:
        return error


def _far(view: View, labels: list[Moments], measured: list[Numbers]) -> dict[int, str]:
    """Output channels that have to learn much more than the shape of their labels, and what that is."""
    channels = view.out_channels or 1
    if view.plan.units_differ(channels):
        return {}
    given = view.scaling.terms if view.scaling else (IDENTITY,) * channels
    found = {}
    for channel, (index, is_variance) in enumerate(view.plan.targets(channels)):
        own = given[channel]
        if is_variance or own is None or not _can_be_scaled(view, channel, measured):
            continue
        mean, std = labels[index].mean, labels[index].std
        offset = 0.0 if is_bounded_by_zero(view.head.ranges[channel]) else (mean - own.mean) / own.std
        if abs(offset) > _FAR or not _SMALL <= std / own.std <= _FAR:
            where = f"in channel {index} " if len(labels) > 1 else ""
            scaled = "" if own == IDENTITY else f", {KEY} is made for {own.mean:g} and {own.std:g}"
            found[channel] = f"{where}the mean {mean:.6g} and the std {std:.6g}{scaled}"
    return found


def _can_be_scaled(view: View, channel: int, measured: list[Numbers]) -> bool:
    """Whether the final activation of a channel, upstream's own included, lets itself be scaled."""
    if view.final is None:
        return view.head.name == "none"
    only = Spec(tuple(None if i == channel else IDENTITY for i in range(len(measured))))
    try:
        scaling_of(only, view.final, measured)
    except ConfigError:
        return False
    return True


def _only(far: dict[int, str], measured: list[Numbers]) -> str:
    names = ["standardize" if channel in far else "none" for channel in range(len(measured))]
    return "standardize" if len(set(names)) == 1 else as_yaml(names)
