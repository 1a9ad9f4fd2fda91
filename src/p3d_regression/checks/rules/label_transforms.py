"""Rules about label transforms that change the values of continuous labels."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules.transforms import ORDERS, deleted, steps_of
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import Fix, delete, write
from p3d_regression.upstream import datasets

family = Family()


def _label_steps(view: View, *names: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The label transforms of a regression that have one of the names."""
    for phase in view.phase_names if view.mode == "train" and view.is_regression else ():
        yield from ((key, step) for key, step in steps_of(view, phase, "label") if step.get("name") in names)


@family.rule("P3D303", "warning")
def labels_scaled_patch_by_patch(view: View) -> Iterator[Found]:
    """Unless the config gives them numbers, Normalize, Standardize and `ToTensor: {normalize: true}` scale each patch
    by its own values, and PercentileNormalizer always does. The same label then gets a different value in every patch,
    and predictions cannot be scaled back. To learn labels in their own units as fast as standardised ones, write
    `target_scaling: standardize` in the section `model`: it scales all labels alike, and scales the predictions back.

    Example:
        loaders:
          train:
            transformer:
              label:
                - {name: Normalize}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - {name: Normalize, min_value: 0, max_value: 1000}
                - {name: ToTensor, expand_dims: true}
    """
    by_raw = bool(view.get("loaders.global_normalization", False))
    for key, step in _label_steps(view, "Normalize", "Standardize", "PercentileNormalizer", "ToTensor"):
        match step["name"]:
            case "Normalize" if step.get("min_value") is None or step.get("max_value") is None:
                fix = _normalized(key, step)
            case "Standardize" if step.get("mean") is None and not by_raw:
                fix = _standardized(key, step)
            case "PercentileNormalizer":
                fix = _normalized(key, {"name": "Normalize"})
            case "ToTensor" if step.get("normalize"):
                fix = write(key, {**step, "normalize": False})
            case _:
                continue
        yield Found(key, f"{step['name']} scales the labels of each patch by its own values", fix)


def _normalized(key: str, step: Mapping[str, Any]) -> Fix:
    bounds = {name: n for name, n in (("min_value", 0), ("max_value", 1000)) if step.get(name) is None}
    return write(key, {**step, **bounds}, note="with the bounds of your labels")


def _standardized(key: str, step: Mapping[str, Any]) -> Fix:
    numbers = {"mean": 0.0, "std": 1.0 if step.get("std") is None else step["std"]}
    return write(key, {**step, **numbers}, note="with the mean and std of your labels")


@family.rule("P3D304", "error")
def labels_standardised_by_raw(view: View) -> Iterator[Found]:
    """With `global_normalization`, Standardize uses mean and standard deviation of the raw volume, for the labels too.
    `target_scaling: standardize` in the section `model` uses those of the training labels, and scales the predictions
    back.

    Example:
        loaders:
          global_normalization: true
          train:
            transformer:
              label:
                - {name: Standardize}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          global_normalization: true
          train:
            transformer:
              label:
                - {name: Standardize, mean: 12.5, std: 30.0}
                - {name: ToTensor, expand_dims: true}
    """
    for key, step in _label_steps(view, "Standardize") if view.get("loaders.global_normalization", False) else ():
        if step.get("mean") is None:
            message = "Standardize uses the mean and std of the raw volume (global_normalization) for the labels"
            yield Found(key, message, _standardized(key, step))


@family.rule("P3D305", "error")
def labels_changed(view: View) -> Iterator[Found]:
    """RandomGammaCorrection rescales to 0..1 and RandomContrast clips to -1..1, both at random: in some patches the
    labels have wrong values, and the loss shows only more noise. Relabel replaces values by consecutive numbers. The
    first two are for raw volumes, the last one is for segmentation.

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
    changing = list(_label_steps(view, "RandomContrast", "RandomGammaCorrection", "Relabel"))
    for key, step in changing:
        yield Found(key, f"{step['name']} changes the values of the labels", deleted(changing, key))


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
    for key, step in _label_steps(view, *ORDERS) if view.plan.mask is None else ():
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
    for key, step in _label_steps(view, "ToTensor"):
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
    for key, step in _label_steps(view, *ORDERS):
        argument = ORDERS[step["name"]]
        if step.get(argument, 0) != 0:
            message = f"{step['name']} mixes voxels labelled {mask} with the labels around them"
            yield Found(f"{key}.{argument}", message, write(key, {**step, argument: 0}))
    changing = [
        (key, step)
        for key, step in _label_steps(view, "Standardize", "Normalize", "PercentileNormalizer")
        if not (
            math.isnan(mask.ignored) and ({"mean", "std"} <= step.keys() or {"min_value", "max_value"} <= step.keys())
        )
    ]
    for key, step in changing:
        message = f"{step['name']} turns {mask} into another value, or the whole patch into NaN"
        yield Found(key, message, deleted(changing, key))
