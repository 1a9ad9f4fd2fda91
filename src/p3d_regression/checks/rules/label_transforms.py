"""Rules about label transforms that change the values of continuous labels."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules.transforms import GEOMETRY, ORDERS, deleted, steps_of
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import delete, write
from p3d_regression.upstream import datasets, transforms

family = Family()


def label_steps(view: View, *names: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The label transforms of a regression that have one of the names."""
    for phase in view.phase_names if view.mode == "train" and view.is_regression else ():
        yield from ((key, step) for key, step in steps_of(view, phase, "label") if step.get("name") in names)


@family.rule("P3D305", "error")
def labels_changed(view: View) -> Iterator[Found]:
    """Noise, blur, contrast and gamma are for raw volumes: in the list of the labels they change the targets at random,
    and the loss shows only more noise. RandomGammaCorrection rescales to 0..1, RandomContrast clips to -1..1. Relabel,
    for segmentation, replaces values by consecutive numbers. Only transforms that move voxels belong in both lists.

    Example:
        loaders:
          train:
            transformer:
              label:
                - {name: RandomGammaCorrection}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - {name: ToTensor, expand_dims: true}
    """
    changing = [(key, step) for key, step in _steps(view) if step["name"] == "Relabel" or _is_for_raw(step)]
    for key, step in changing:
        yield Found(key, f"{step['name']} changes the values of the labels", deleted(changing, key))


def _is_for_raw(step: Mapping[str, Any]) -> bool:
    """Whether a transform draws random values, and does not move voxels by them."""
    never = step.get("execution_probability") == 0
    return transforms.is_random(step) and transforms.is_upstreams(step) and step["name"] not in GEOMETRY and not never


@family.rule("P3D311", "warning")
def labels_replaced(view: View) -> Iterator[Found]:
    """The transform makes masks of objects from numbered objects: boundaries, affinities, foreground. The loss of this
    config compares continuous values, and gets zeros and ones.

    Example:
        loaders:
          train:
            transformer:
              label:
                - {name: StandardLabelToBoundary}

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - {name: ToTensor, expand_dims: true}
    """
    making = [(key, step) for key, step in _steps(view) if re.search(_MASKS, str(step["name"]))]
    for key, step in making:
        fix = deleted(making, key)
        if not any(other.get("name") == "ToTensor" for _, other in _steps(view, key.split(".")[1])):
            fix = write(key.partition("[")[0], [{"name": "ToTensor", "expand_dims": True}])
        yield Found(key, f"{step['name']} replaces the labels by masks of objects", fix)


#: What pytorch-3dunet calls transforms that make masks.
_MASKS = r"To(Boundary|Z?Affinities|BoundaryAndAffinities|MaskAndAffinities|Mask)$"


def _steps(view: View, *phases: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The label transforms of a regression that have a name."""
    for phase in (phases or view.phase_names) if view.mode == "train" and view.is_regression else ():
        yield from ((key, step) for key, step in steps_of(view, phase, "label") if isinstance(step.get("name"), str))


@family.rule("P3D306", "warning")
def labels_interpolated_nearest(view: View) -> Iterator[Found]:
    """RandomRotate by default, and ElasticDeformation with `spline_order: 0`, give each voxel the label of the nearest
    voxel. Class numbers need that. Continuous labels get steps: a distance map is wrong by 0.2 voxels on average, and
    by up to 0.9. The RandomScaler behind `random_scale` always takes the nearest voxel. With `ignore_index`, order 0 is
    correct: any other order mixes labels with the value for "no label".

    Example:
        loaders:
          train:
            transformer:
              label:
                - {name: RandomRotate}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - {name: RandomRotate, order: 3}
                - {name: ToTensor, expand_dims: true}
    """
    for key, step in label_steps(view, *ORDERS) if view.plan.mask is None else ():
        argument = ORDERS[step["name"]]
        # ElasticDeformation has no default: another rule finds it without the argument
        if step.get(argument, 0 if argument == "order" else None) == 0:
            message = f"{step['name']} gives voxels the label of the nearest voxel"
            yield Found(f"{key}.{argument}", message, write(key, {**step, argument: 3}))
    if view.is_regression and view.get("loaders.random_scale") is not None:
        message = "the scaler always takes the label of the nearest voxel"
        yield Found("loaders.random_scale", message, delete("loaders.random_scale"))


@family.rule("P3D307", "error", needs="volumes")
def labels_cast_to_integer(view: View) -> Iterator[Found]:
    """An integer `dtype`, which segmentation configs have for cross-entropy, cuts off all decimals of the labels, and a
    small one wraps large numbers. The training runs without a message. The rule does not report labels that the type
    can hold, such as counts.

    Example:
        loaders:
          train:
            transformer:
              label:
                - {name: ToTensor, expand_dims: true, dtype: int64}

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - {name: ToTensor, expand_dims: true}
    """
    for key, step in label_steps(view, "ToTensor"):
        phase = view.phases.get(key.split(".")[1])
        if phase is not None and phase.changed_by_cast and datasets.casts_to_integer(step):
            uncast = {name: value for name, value in step.items() if name != "dtype"}
            message = f"{step['dtype']} cannot hold the labels: they become other numbers"
            yield Found(key, message, write(key, uncast))


@family.rule("P3D310", "error")
def mask_changed_by_transform(view: View) -> Iterator[Found]:
    """Label transforms do not treat the value of `ignore_index` specially. An interpolation mixes it with the labels
    around it, and a normalisation turns it into another value: voxels that should not count then have a wrong label and
    do count. A NaN spreads to many voxels, or to the whole patch.

    Example:
        model:
          final_activation: none
        loss:
          name: MSELoss
          ignore_index: -100
        loaders:
          train:
            transformer:
              label:
                - {name: RandomRotate, order: 3}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        model:
          final_activation: none
        loss:
          name: MSELoss
          ignore_index: -100
        loaders:
          train:
            transformer:
              label:
                - {name: RandomRotate, order: 0}
                - {name: ToTensor, expand_dims: true}
    """
    mask = view.plan.mask
    if mask is None:
        return
    for key, step in label_steps(view, *ORDERS):
        argument = ORDERS[step["name"]]
        if step.get(argument, 0) != 0:
            message = f"{step['name']} mixes voxels labelled {mask} with the labels around them"
            yield Found(f"{key}.{argument}", message, write(key, {**step, argument: 0}))
    changing = [
        (key, step)
        for key, step in label_steps(view, "Standardize", "Normalize", "PercentileNormalizer")
        if not (
            math.isnan(mask.ignored) and ({"mean", "std"} <= step.keys() or {"min_value", "max_value"} <= step.keys())
        )
    ]
    for key, step in changing:
        message = f"{step['name']} turns {mask} into another value, or the whole patch into NaN"
        yield Found(key, message, deleted(changing, key))
