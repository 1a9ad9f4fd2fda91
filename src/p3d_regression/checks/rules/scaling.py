"""Rules about ``target_scaling``, and about labels that need it."""

from collections.abc import Iterator

from p3d_regression.activations.spec import KEY as ACTIVATION
from p3d_regression.checks.reading import compared_label_channels
from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules import values
from p3d_regression.checks.rules.intensity import raw_moments
from p3d_regression.checks.view import View
from p3d_regression.errors import ConfigError, Found
from p3d_regression.fix import delete, write
from p3d_regression.labels.moments import Moments
from p3d_regression.scaling.measured import check_variances, numbers_of
from p3d_regression.scaling.spec import KEY, Spec
from p3d_regression.scaling.target import is_bounded_by_zero, scaling_of
from p3d_regression.scaling.terms import IDENTITY, Follow, Numbers
from p3d_regression.training.raw_transforms import fixed_numbers, raw_steps_by_statistics

family = Family()

#: Means of more standard deviations than this, and standard deviations above it, are far from 0 and 1.
_FAR = 5.0

#: So are standard deviations below this; those of labels in 0..1 are above.
_SMALL = 1 / 50


@family.rule("P3D701", "error", modes=BOTH, raised_by_builder=True)
def target_scaling_not_understood(view: View) -> Iterator[Found]:
    """`target_scaling` has an unknown value, `final_activation` is missing, or it is an activation whose bounds the
    scaling would move. For values between two bounds write `{name: bounded, low: ..., high: ...}`, whose output has the
    units of the labels. Training stops with the same message.

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
        yield view.scaling_error.found


@family.rule("P3D702", "error", raised_by_builder=True)
def target_scaling_of_other_units(view: View) -> Iterator[Found]:
    """`standardize` scales the output to the units of the labels. If the output of the model is something else for the
    loss, such as a logit or the logarithm of a rate, these units are wrong. Numbers of your own, `{mean: ..., std:
    ...}`, are used as they are.

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
        yield Found(
            f"model.{KEY}", f"{reason}: mean and std of the labels are not those of the output", delete(f"model.{KEY}")
        )


@family.rule("P3D703", "error", needs="volumes")
def target_scaling_cannot_be_measured(view: View) -> Iterator[Found]:
    """Labels that are constant, masked everywhere, or not finite have no standard deviation to scale with. The smallest
    variance that the loss takes may be larger than that of the labels. Training stops with the same message.

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
    if not _will_be_measured(view) or labels is None:
        return
    try:
        check_variances(_numbers(view, labels), view.plan.least_variances(view.out_channels or 1))
    except ConfigError as error:
        yield error.found


@family.rule("P3D704", "warning", needs="volumes")
def labels_far_from_standard(view: View) -> Iterator[Found]:
    """A network starts with outputs around 0 and with a spread of about 1, and learning rates are chosen for that. If
    the mean or the standard deviation of the labels is far from 0 and 1, the network must learn these first: with the
    learning rate 0.0002 of pytorch-3dunet's examples, the predictions of distances of 12 +- 13 mm are worse than a
    constant after 125 iterations; with `target_scaling` a tenth of that is enough. Loss, scores and predictions stay in
    the units of the labels. Numbers of your own that do not fit the labels are reported as well.

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
    if any(values.fill_of(channel) is not None or channel.low == channel.high for channel in labels):
        return  # another rule says what these labels are
    if view.get("trainer.resume") is not None:
        return  # the checkpoint decides
    measured = _measured(view, labels)
    if isinstance(measured, ConfigError) or not (far := _far(view, labels, measured)):
        return
    entries = [entry.short for entry in view.final.entries] if view.final else ["none"]
    final = view.model.get(ACTIVATION, entries if len(entries) > 1 else entries[0])
    fix = write(f"model.{ACTIVATION}", final) + write(f"model.{KEY}", _standardized(view, far))
    yield Found(f"model.{KEY}", f"the labels of train have {'; '.join(far.values())}", fix)


@family.rule("P3D705", "error", needs="volumes")
def raw_volume_cannot_be_followed(view: View) -> Iterator[Found]:
    """`target_scaling: patch` and `residual` let the output follow the raw volume. That needs raw values whose level is
    kept: `Standardize` and `Normalize` with fixed numbers, and labels that follow the raw values at all. Training stops
    with the same message.

    Example:
        model:
          final_activation: none
          target_scaling: residual
        loaders:
          train:
            transformer:
              raw: [{name: Standardize}, {name: ToTensor, expand_dims: true}]

    Use instead:
        model:
          final_activation: none
          target_scaling: standardize
        loaders:
          train:
            transformer:
              raw: [{name: Standardize}, {name: ToTensor, expand_dims: true}]
    """
    phase = view.phases.get("train")
    scaling = view.scaling
    if phase is None or scaling is None or not scaling.is_measured or not scaling.follows_raw:
        return
    if view.get("trainer.resume") is not None:
        return
    if steps := list(raw_steps_by_statistics(view.config)):
        key, step = steps[0]
        message = f"{step['name']} scales each raw patch or volume by its own statistics: the output cannot follow them"
        yield Found(key, message, fixed_numbers(view.config, raw_moments(phase)))
        return
    if phase.lines_error is not None:
        yield phase.lines_error.found
    for channel, term in enumerate(scaling.terms) if phase.lines is not None else ():
        try:
            if isinstance(term, Follow) and phase.lines is not None and channel in phase.lines.found:
                phase.lines.term(channel)
        except ConfigError as error:
            yield error.found
            return


def _is_measured(view: View) -> bool:
    return view.scaling is not None and view.scaling.is_measured


def _will_be_measured(view: View) -> bool:
    """A resumed training takes the numbers from its checkpoint."""
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
        return _numbers(view, labels)
    except ConfigError as error:
        return error


def _numbers(view: View, labels: list[Moments]) -> list[Numbers]:
    return numbers_of(labels, view.plan.targets(view.out_channels or 1), "loaders.train")


def _far(view: View, labels: list[Moments], measured: list[Numbers]) -> dict[int, str]:
    """Output channels whose labels are far from mean 0 and standard deviation 1, and these numbers in words."""
    channels = view.out_channels or 1
    if view.plan.units_differ(channels):
        return {}
    given = view.scaling.terms if view.scaling else (IDENTITY,) * channels
    found = {}
    for channel, (index, is_variance) in enumerate(view.plan.targets(channels)):
        own = given[channel]
        if is_variance or not isinstance(own, Numbers) or not _can_be_scaled(view, channel, measured):
            continue
        mean, std = labels[index].mean, labels[index].std
        offset = 0.0 if is_bounded_by_zero(view.last_layer.ranges[channel]) else (mean - own.mean) / own.std
        if abs(offset) > _FAR or not _SMALL <= std / own.std <= _FAR:
            where = f"in channel {index} " if len(labels) > 1 else ""
            scaled = "" if own == IDENTITY else f", {KEY} is made for {own.mean:g} and {own.std:g}"
            found[channel] = f"{where}the mean {mean:.6g} and the std {std:.6g}{scaled}"
    return found


def _can_be_scaled(view: View, channel: int, measured: list[Numbers]) -> bool:
    """Whether the output of a channel can be scaled."""
    if view.final is None:
        return view.last_layer.name == "none"
    only = Spec(tuple(None if i == channel else IDENTITY for i in range(len(measured))))
    try:
        scaling_of(only, view.final, measured)
    except ConfigError:
        return False
    return True


def _standardized(view: View, far: dict[int, str]) -> str | list[object]:
    """The value of the key that standardizes some channels and keeps the scaling of the others."""
    terms = view.scaling.terms if view.scaling else (IDENTITY,) * (view.out_channels or 1)
    values: list[object] = [
        "standardize" if channel in far else "none" if own is None else Spec((own,)).plain
        for channel, own in enumerate(terms)
    ]
    return "standardize" if len(far) == len(values) else values
