"""Rules about what is done to raw volumes and labels on their way into the network."""

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.model import unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.text import as_yaml
from p3d_regression.upstream import datasets, introspection

family = Family()

#: What upstream puts into the arguments of every transform.
_OWN_ARGUMENTS = ("name", "random_state", "pmin", "pmax", "mean", "std")


def _all_steps(view: View) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Phase, kind and step of every transform."""
    for phase in view.phase_names:
        for kind in ("raw", "label") if view.mode == "train" else ("raw",):
            for index, step in enumerate(view.steps(phase, kind)):
                yield f"loaders.{phase}.transformer.{kind}[{index}]", kind, step


def _label_steps(view: View) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The label transforms of a regression."""
    if view.mode == "train" and view.is_regression:
        for key, kind, step in _all_steps(view):
            if kind == "label":
                yield key, step


def _step(step: Mapping[str, Any], **changes: object) -> str:
    """A transform with other arguments, ready to be pasted."""
    return f"- {as_yaml({**step, **changes})}"


@family.rule("P3D301", "error", modes=BOTH)
def transform_not_understood(view: View) -> Iterator[Found]:
    """A transform that upstream does not have, or one without an argument that it needs: `expand_dims` of ToTensor,
    `spline_order` of ElasticDeformation. Upstream stops with an AttributeError or a TypeError.

    Example:
        loaders:
          train:
            transformer:
              label:
                - name: Totensor
                  expand_dims: true

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - name: ToTensor
                  expand_dims: true
    """
    for key, _, step in _all_steps(view):
        cls = introspection.transform_class(step.get("name"))
        if cls is None:
            message, fix = unknown(step.get("name"), introspection.transform_names(), "name", "a transform of upstream")
            yield Found(key, message, f"- {fix}" if fix.startswith("name") else fix)
            continue
        given = {*step, *_OWN_ARGUMENTS}
        for argument in introspection.required(cls):
            # a misspelled one is another rule's
            if argument not in given and not get_close_matches(argument, list(map(str, step)), n=1, cutoff=0.8):
                example = {"expand_dims": True, "spline_order": 3}.get(argument, "...")
                yield Found(key, f"{cls.__name__} needs the argument {argument}", _step(step, **{argument: example}))


@family.rule("P3D302", "error", modes=BOTH)
def ignored_transform_argument(view: View) -> Iterator[Found]:
    """Upstream's transforms accept any argument and ignore those that they do not know: `spline_order` belongs to
    ElasticDeformation, `order` to RandomRotate.

    Example:
        loaders:
          train:
            transformer:
              label:
                - name: RandomRotate
                  spline_order: 3
                - name: ToTensor
                  expand_dims: true

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - name: RandomRotate
                  order: 3
                - name: ToTensor
                  expand_dims: true
    """
    for key, _, step in _all_steps(view):
        cls = introspection.transform_class(step.get("name"))
        if cls is None:
            continue
        known = [name for name in introspection.arguments(cls) if name not in ("random_state", "kwargs")]
        for argument in step:
            if argument in _OWN_ARGUMENTS or argument in known:
                continue
            nearest = get_close_matches(str(argument), known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]}?" if nearest else f"it takes {', '.join(known) or 'none'}"
            fixed = {
                (nearest[0] if nearest and k == argument else k): v for k, v in step.items() if nearest or k != argument
            }
            yield Found(f"{key}.{argument}", f"{cls.__name__} ignores this argument; {hint}", f"- {as_yaml(fixed)}")


@family.rule("P3D303", "warning")
def labels_scaled_patch_by_patch(view: View) -> Iterator[Found]:
    """Without numbers of their own, Normalize, Standardize and `ToTensor: {normalize: true}` scale each patch by its
    own values, and PercentileNormalizer always does. The same label then means something else in every patch, and
    predictions cannot be scaled back. To learn labels in units of their own as fast as standardised ones, write
    `target_scaling: standardize` in the section `model`: it scales all labels alike, and predictions back.

    Example:
        loaders:
          train:
            transformer:
              label:
                - name: Normalize
                - name: ToTensor
                  expand_dims: true

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - name: Normalize
                  min_value: 0
                  max_value: 1000
                - name: ToTensor
                  expand_dims: true
    """
    by_raw = bool(view.get("loaders.global_normalization", False))
    for key, step in _label_steps(view):
        match step.get("name"):
            case "Normalize" if step.get("min_value") is None or step.get("max_value") is None:
                fix = _step(step, min_value=0, max_value=1000) + "  # with the bounds of your labels"
            case "Standardize" if step.get("mean") is None and not by_raw:
                fix = _step(step, mean=0.0, std=1.0) + "  # with the mean and std of your labels"
            case "PercentileNormalizer":
                fix = "- {name: Normalize, min_value: 0, max_value: 1000}  # with the bounds of your labels"
            case "ToTensor" if step.get("normalize"):
                fix = _step(step, normalize=False)
            case _:
                continue
        yield Found(key, f"{step['name']} scales the labels of each patch by its own values", fix)


@family.rule("P3D304", "error")
def labels_standardised_by_raw(view: View) -> Iterator[Found]:
    """With `global_normalization`, Standardize gets mean and standard deviation of the whole volume, and that is always
    the raw volume, for the labels too. `target_scaling: standardize` in the section `model` takes those of the training
    labels, and scales predictions back.

    Example:
        loaders:
          global_normalization: true
          train:
            transformer:
              label:
                - name: Standardize
                - name: ToTensor
                  expand_dims: true

    Use instead:
        loaders:
          global_normalization: true
          train:
            transformer:
              label:
                - name: Standardize
                  mean: 12.5
                  std: 30.0
                - name: ToTensor
                  expand_dims: true
    """
    if not view.get("loaders.global_normalization", False):
        return
    for key, step in _label_steps(view):
        if step.get("name") == "Standardize" and step.get("mean") is None:
            fix = _step(step, mean=0.0, std=1.0) + "  # with the mean and std of your labels"
            yield Found(
                key, "Standardize uses the mean and std of the raw volume (global_normalization) for the labels", fix
            )


@family.rule("P3D305", "error")
def labels_changed(view: View) -> Iterator[Found]:
    """RandomGammaCorrection rescales to 0..1 and RandomContrast clips to -1..1, both at random: now and then the
    labels of a patch are other values altogether. Relabel numbers the values that it finds. The first two are meant
    for raw volumes, the last for segmentation.

    Example:
        loaders:
          train:
            transformer:
              label:
                - name: RandomGammaCorrection
                - name: ToTensor
                  expand_dims: true

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - name: ToTensor
                  expand_dims: true
    """
    for key, step in _label_steps(view):
        if step.get("name") in ("RandomContrast", "RandomGammaCorrection", "Relabel"):
            said = f"{step['name']} makes other values of the labels"
            yield Found(key, said, "delete it from the label transforms")


@family.rule("P3D306", "warning")
def labels_interpolated_nearest(view: View) -> Iterator[Found]:
    """RandomRotate moves labels to the nearest voxel unless told otherwise, and ElasticDeformation with
    `spline_order: 0`, as class numbers need it. Continuous labels get steps: a distance map is off by 0.2 voxels in
    the mean, and by up to 0.9. The RandomScaler behind `random_scale` cannot be told otherwise. With `ignore_index` it
    is the right one: any other mixes labels with what is no label.

    Example:
        loaders:
          train:
            transformer:
              label:
                - name: RandomRotate
                - name: ToTensor
                  expand_dims: true

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - name: RandomRotate
                  order: 3
                - name: ToTensor
                  expand_dims: true
    """
    for key, step in _label_steps(view):
        argument = {"RandomRotate": "order", "ElasticDeformation": "spline_order"}.get(str(step.get("name")))
        # ElasticDeformation has no default: without the argument upstream stops
        if view.plan.mask is None and argument and step.get(argument, 0 if argument == "order" else None) == 0:
            yield Found(
                f"{key}.{argument}", f"{step['name']} moves labels to the nearest voxel", _step(step, **{argument: 3})
            )
    if view.is_regression and view.get("loaders.random_scale") is not None:
        yield Found("loaders.random_scale", "the scaler moves labels to the nearest voxel, always", "delete the line")


@family.rule("P3D307", "error", needs="volumes")
def labels_cast_to_integer(view: View) -> Iterator[Found]:
    """An integer `dtype`, which segmentation configs have for cross-entropy, cuts everything behind the decimal point
    off the labels, and a small one wraps large numbers. Labels that it can hold, such as counts, lose nothing, and
    are not found.

    Example:
        loaders:
          train:
            transformer:
              label:
                - name: ToTensor
                  expand_dims: true
                  dtype: int64

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - name: ToTensor
                  expand_dims: true
    """
    for key, step in _label_steps(view):
        phase = view.phases.get(key.split(".")[1])
        if phase is not None and phase.changed_by_cast and datasets.casts_to_integer(step):
            fix = _step({k: v for k, v in step.items() if k != "dtype"})
            yield Found(key, f"{step['dtype']} cannot hold the labels: they become other numbers", fix)


#: Random transforms that move voxels, and their arguments that decide where to.
_GEOMETRY = {
    "RandomFlip": ("axis_prob",),
    "RandomRotate90": (),
    "RandomRotate": ("angle_spectrum", "axes"),
    "ElasticDeformation": ("alpha", "sigma", "execution_probability", "apply_3d"),
    "CropToFixed": ("size", "centered"),
}


@family.rule("P3D308", "error")
def labels_moved_apart(view: View) -> Iterator[Found]:
    """Transforms that flip, rotate, deform or crop draw the same random numbers for raw volume and labels, if they
    stand in both lists, in the same order and with the same arguments. Otherwise the labels of a patch belong to
    another place of it, and the network learns what is left: blur.

    Example:
        loaders:
          train:
            transformer:
              raw:
                - name: Standardize
                - name: RandomFlip
                - name: ToTensor
                  expand_dims: true
              label:
                - name: ToTensor
                  expand_dims: true

    Use instead:
        loaders:
          train:
            transformer:
              raw:
                - name: Standardize
                - name: RandomFlip
                - name: ToTensor
                  expand_dims: true
              label:
                - name: RandomFlip
                - name: ToTensor
                  expand_dims: true
    """
    for phase in view.phase_names if view.mode == "train" else ():
        raw, label = (
            [_geometry(step) for step in view.steps(phase, kind) if str(step.get("name")) in _GEOMETRY]
            for kind in ("raw", "label")
        )
        if raw != label:
            said = [", ".join(as_yaml(step) for step in steps) or "none" for steps in (raw, label)]
            yield Found(
                f"loaders.{phase}.transformer",
                f"raw volume and labels are moved differently: {said[0]} and {said[1]}",
                f"label:  # among its other transforms\n  - {said[0].replace(', {', chr(10) + '  - {')}" if raw else "",
            )


def _geometry(step: Mapping[str, Any]) -> dict[str, Any]:
    cls = introspection.transform_class(step["name"])
    default = {name: introspection.default(cls, name) for name in _GEOMETRY[step["name"]]} if cls else {}
    # what is at its default says nothing, whether it is written or not
    given = {name: step[name] for name in default if name in step and step[name] != default[name]}
    return {"name": step["name"], **given}


@family.rule("P3D309", "error", modes=BOTH, needs="volumes")
def transform_breaks(view: View) -> Iterator[Found]:
    """All transforms are tried on the first patch of each phase, also those that upstream uses at random.
    RandomContrast without `mean`, for example, is given None unless there is `global_normalization`, and breaks one
    patch in ten: a training may get far before it stops.

    Example:
        loaders:
          train:
            transformer:
              raw:
                - name: Standardize
                - name: RandomContrast
                - name: ToTensor
                  expand_dims: true

    Use instead:
        loaders:
          train:
            transformer:
              raw:
                - name: Standardize
                - name: RandomContrast
                  mean: 0.0
                - name: ToTensor
                  expand_dims: true
    """
    for name, phase in view.phases.items():
        for key, error in phase.broken_transforms:
            yield Found(f"loaders.{name}.transformer.{key}", f"breaks on the first patch: {error}")


@family.rule("P3D310", "error")
def mask_changed_by_transform(view: View) -> Iterator[Found]:
    """Label transforms do not know of `ignore_index`. An interpolation mixes its value with the labels around, and a
    normalisation makes another value of it: voxels that should not count are then trained on, with values that are
    none. A NaN becomes that of many voxels, or of the whole patch.

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
                - name: RandomRotate
                  order: 3
                - name: ToTensor
                  expand_dims: true

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
                - name: RandomRotate
                  order: 0
                - name: ToTensor
                  expand_dims: true
    """
    mask = view.plan.mask
    if mask is None:
        return
    for key, step in _label_steps(view):
        name = str(step.get("name"))
        argument = {"RandomRotate": "order", "ElasticDeformation": "spline_order"}.get(name)
        if argument and step.get(argument, 0) != 0:
            said = f"{name} mixes voxels labelled {mask} with the labels around them"
            yield Found(f"{key}.{argument}", said, _step(step, **{argument: 0}))
        fixed = {"mean", "std"} <= step.keys() or {"min_value", "max_value"} <= step.keys()
        keeps_nan = math.isnan(mask.ignored) and fixed
        if name in ("Standardize", "Normalize", "PercentileNormalizer") and not keeps_nan:
            said = f"{name} makes another value of {mask}, or NaN of the whole patch"
            yield Found(key, said, "normalise the label volumes themselves, and delete it from the label transforms")
