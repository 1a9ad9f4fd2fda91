"""Rules about the absolute intensity of raw volumes: who sees it, and whether the labels depend on it."""

from collections.abc import Iterator

from p3d_regression.checks.data import Phase
from p3d_regression.checks.rule import Family
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import NO_FIX, write
from p3d_regression.interval import REAL_LINE
from p3d_regression.labels.brightness import dependence
from p3d_regression.labels.moments import Moments
from p3d_regression.model.contract import network_of
from p3d_regression.scaling.spec import KEY
from p3d_regression.training.raw_transforms import fixed_numbers, raw_steps_by_statistics
from p3d_regression.upstream import networks

family = Family()

#: Of the variance between patches, what the level of the raw patches explains less after the raw transforms.
_LOST = 0.3

#: Of the variance of the labels, what a line through the raw values has to explain so that following them helps.
_LINE_EXPLAINS = 0.3


@family.rule("P3D516", "warning", needs="volumes")
def level_not_seen(view: View) -> Iterator[Found]:
    """With a GroupNorm, as in the default `layer_order: gcr`, a network normalises each raw patch: two patches that
    differ in their brightness alone are the same to it. That helps where only the shapes of things count. Here the
    labels of a patch follow its brightness, as in denoising, counts, doses or densities, and what follows it cannot be
    learned. `target_scaling: residual` adds to the raw volume what the network predicts, and keeps the level. Raw
    transforms that scale each patch or volume by its own statistics remove the level as well.

    Example:
        model:
          layer_order: gcr
          final_activation: none
        loaders:
          raw_internal_path: level_falls
          label_internal_path: level_falls_too
          train:
            slice_builder: {patch_shape: [2, 64, 64], stride_shape: [1, 64, 8]}
            transformer:
              raw: [{name: Standardize, mean: 600.0, std: 250.0}, {name: ToTensor, expand_dims: true}]

    Use instead:
        model:
          layer_order: gcr
          final_activation: none
          target_scaling: residual
        loaders:
          raw_internal_path: level_falls
          label_internal_path: level_falls_too
          train:
            slice_builder: {patch_shape: [2, 64, 64], stride_shape: [1, 64, 8]}
            transformer:
              raw: [{name: Standardize, mean: 600.0, std: 250.0}, {name: ToTensor, expand_dims: true}]
    """
    phase = view.phases.get("train")
    if phase is None or phase.levels is None or not view.is_regression or view.get("trainer.resume") is not None:
        return
    levels = phase.levels
    follows = dependence(levels, list(phase.lines.of_file.values()) if phase.lines else [])
    if not follows:
        return
    steps = list(raw_steps_by_statistics(view.config))
    fixed = fixed_numbers(view.config, raw_moments(phase))
    if steps and levels.explained - levels.left_by_transforms > _LOST:
        key, step = steps[0]
        message = f"{step['name']} removes the brightness of each raw patch or volume, but {follows}"
        yield Found(key, message, fixed + (write(f"model.{KEY}", "residual") if _may_follow(view, phase) else NO_FIX))
    elif not (view.scaling is not None and view.scaling.follows_raw) and (blind := _blind(view)):
        message = f"{blind} normalises each raw patch, so that the network cannot see its brightness, but {follows}"
        is_line = phase.lines and all(f.voxels.explained > _LINE_EXPLAINS for f in phase.lines.found.values())
        follow = fixed + write(f"model.{KEY}", "residual") if is_line and _may_follow(view, phase) else NO_FIX
        yield Found("model.layer_order", message, follow or write("model.layer_order", "cr"))


def _blind(view: View) -> str:
    """The order of the layers of a network that does not see the brightness; empty if it does."""
    network = network_of(view.model)
    order = network.get("layer_order")
    if not isinstance(order, str) or not networks.is_blind(network):
        return ""
    return order


def _may_follow(view: View, phase: Phase) -> bool:
    """Whether the output may follow the raw volume, and does not yet."""
    if phase.lines is None or (view.scaling is not None and view.scaling.follows_raw):
        return False
    is_unbounded = view.final is not None and all(interval == REAL_LINE for interval in view.last_layer.ranges)
    return is_unbounded and not view.plan.units_differ(view.out_channels or 1)


def raw_moments(phase: Phase) -> Moments:
    """Of all raw volumes of a phase together."""
    whole = Moments()
    for file in phase.files:
        if file.raw_moments is not None:
            whole.merge(file.raw_moments)
    return whole
