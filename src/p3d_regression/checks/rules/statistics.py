"""Rules about transforms that scale values by statistics other than those that are meant."""

from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.label_transforms import label_steps
from p3d_regression.checks.rules.transforms import steps_of
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import Fix, advise, write

family = Family()


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
    for key, step in label_steps(view, "Normalize", "Standardize", "PercentileNormalizer", "ToTensor"):
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
    for key, step in label_steps(view, "Standardize") if view.get("loaders.global_normalization", False) else ():
        if step.get("mean") is None:
            message = "Standardize uses the mean and std of the raw volume (global_normalization) for the labels"
            yield Found(key, message, _standardized(key, step))


@family.rule("P3D312", "warning", modes=BOTH, needs="files")
def planes_scaled_apart(view: View) -> Iterator[Found]:
    """With `channelwise: true` a transform takes the statistics of each entry of the first axis. A volume without
    channels, (D, H, W), has its planes there: each plane is scaled on its own, and what differs between planes is gone.

    Example:
        loaders:
          train:
            transformer:
              raw:
                - {name: Standardize, channelwise: true}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              raw:
                - {name: Standardize}
                - {name: ToTensor, expand_dims: true}
    """
    for name, phase in view.phases.items():
        for kind in ("raw", "label") if view.mode == "train" else ("raw",):
            flat = [f.path for f in phase.files if (v := getattr(f, kind)) and len(v.shape) == 3]
            for key, step in steps_of(view, name, kind) if flat else ():
                if step.get("channelwise") is True:
                    message = f"{flat[0]} has no channels: {step.get('name')} scales each plane on its own"
                    fix = write(key, {k: v for k, v in step.items() if k != "channelwise"})
                    yield Found(f"{key}.channelwise", message, fix)


@family.rule("P3D315", "warning", needs="volumes")
def labels_clipped(view: View) -> Iterator[Found]:
    """`Normalize` with `min_value` and `max_value` cuts off what lies outside: all these labels get the same value, and
    the network learns that value for them.

    Example:
        loaders:
          label_internal_path: counts
          train:
            transformer:
              label:
                - {name: Normalize, min_value: 990.0, max_value: 1010.0}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          label_internal_path: counts
          train:
            transformer:
              label:
                - {name: Normalize, min_value: 0.0, max_value: 2000.0}
                - {name: ToTensor, expand_dims: true}
    """
    phase = view.phases.get("train")
    if phase is None or phase.clipping is None or phase.changed_by_cast or phase.clipping.share < _LEAST_CLIPPED:
        return
    found = phase.clipping
    bounded = [(key, step) for key, step in label_steps(view, "Normalize") if key.startswith("loaders.train.")]
    if len(bounded) == 1:
        key, step = bounded[0]
        message = (
            f"cuts off {found.share:.1%} of the labels: those of the files go from {found.low:.6g} to {found.high:.6g}"
        )
        fix = write(key, {**step, "min_value": found.low, "max_value": found.high}, note="or wider")
        yield Found(key, message, fix)
    else:
        message = (
            f"{found.share:.1%} of the labels become equal at the lowest or highest value, though the files hold "
            f"different ones, from {found.low:.6g} to {found.high:.6g}"
        )
        yield Found("loaders.train.transformer.label", message, advise("find the transform that cuts the labels off"))


#: Share of the labels from which cutting them off is reported.
_LEAST_CLIPPED = 0.001
