"""Rules about the transforms of raw volumes and labels: their arguments, and whether both move the same voxels."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from p3d_regression.checks.rule import BOTH, Family
from p3d_regression.checks.rules.names import nearest, unknown
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import NO_FIX, Fix, advise, delete, write
from p3d_regression.text import as_yaml
from p3d_regression.upstream import datasets, introspection

family = Family()

#: What pytorch-3dunet adds to the arguments of every transform.
_OWN_ARGUMENTS = ("name", "random_state", "pmin", "pmax", "mean", "std")

#: Values for arguments that have no default.
_EXAMPLES = {"expand_dims": True, "spline_order": 3, "offsets": [1, 2], "xy_offsets": [1, 2], "z_offsets": [1, 2]}

_TO_TENSOR = {"name": "ToTensor", "expand_dims": True}

#: Random transforms that move voxels, and their arguments that decide where to.
GEOMETRY = {
    "RandomFlip": ("axis_prob",),
    "RandomRotate90": (),
    "RandomRotate": ("angle_spectrum", "axes"),
    "ElasticDeformation": ("alpha", "sigma", "execution_probability", "apply_3d"),
    "CropToFixed": ("size", "centered"),
}

#: The argument of a transform that is the order of its interpolation.
ORDERS = {"RandomRotate": "order", "ElasticDeformation": "spline_order"}


def steps_of(view: View, phase: str, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Key and arguments of every transform of ``raw`` or ``label`` in a phase."""
    steps = view.get(f"loaders.{phase}.transformer.{kind}")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, Mapping):
            yield f"loaders.{phase}.transformer.{kind}[{index}]", step


def _all_steps(view: View) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for phase in view.phase_names:
        for kind in ("raw", "label") if view.mode == "train" else ("raw",):
            yield from steps_of(view, phase, kind)


def deleted(steps: Iterable[tuple[str, Mapping[str, Any]]], key: str) -> Fix:
    """Delete the transforms of the list that a key is of: one fix for all, since each deletion moves the others."""
    return delete(*(place for place, _ in steps if place.partition("[")[0] == key.partition("[")[0]))


def completed(step: Mapping[str, Any]) -> dict[str, Any]:
    """A transform with the arguments that it needs."""
    cls = introspection.transform_class(step.get("name"))
    missing = [name for name in introspection.required(cls) if name not in {*step, *_OWN_ARGUMENTS}] if cls else []
    return {**step, **{name: _EXAMPLES.get(name, 1) for name in missing}}


def transformer(view: View, phase: str) -> dict[str, list[Mapping[str, Any]]]:
    """Transforms that work in a phase, for each kind; they move the voxels as those of the other kind do."""
    moves = {kind: list(_moves(view, phase, kind)) for kind in ("raw", "label")}
    made: dict[str, list[Mapping[str, Any]]] = {"raw": [{"name": "Standardize"}, *moves["label"], _TO_TENSOR]}
    if view.mode == "train":
        made["label"] = [*(for_labels(view, step) for step in moves["raw"]), _TO_TENSOR]
    return made


def usable(view: View, place: str) -> Fix:
    """Rewrite a list of transforms with those that are meant: each one that is deleted moves the others."""
    _, phase, _, kind = place.split(".")
    items = [item if isinstance(item, Mapping) else {"name": item} for item in view.get(place)]
    meant = [
        item["name"] if _class(item) else nearest(item.get("name"), introspection.transform_names()) for item in items
    ]
    good = [completed({**item, "name": name}) for item, name in zip(items, meant, strict=True) if name]
    return write(place, good or transformer(view, phase)[kind])


def _moves(view: View, phase: str, kind: str) -> Iterator[Mapping[str, Any]]:
    return (step for _, step in steps_of(view, phase, kind) if str(step.get("name")) in GEOMETRY)


def for_labels(view: View, step: Mapping[str, Any]) -> Mapping[str, Any]:
    """A transform of the raw volume as the labels need it: only continuous labels are interpolated."""
    argument = ORDERS.get(str(step.get("name")))
    is_continuous = view.is_regression and view.plan.mask is None
    return {**step, argument: 3 if is_continuous else 0} if argument else step


@family.rule("P3D301", "error", modes=BOTH)
def transform_not_understood(view: View) -> Iterator[Found]:
    """pytorch-3dunet does not have this transform, or the transform lacks an argument that it needs: `expand_dims` of
    ToTensor, `spline_order` of ElasticDeformation. pytorch-3dunet stops with an AttributeError or a TypeError.

    Example:
        loaders:
          train:
            transformer:
              label:
                - {name: Totensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - {name: ToTensor, expand_dims: true}
    """
    names = introspection.transform_names()
    for key, step in _all_steps(view):
        cls, name = _class(step), step.get("name")
        if cls is None:
            message, _ = unknown(name, names, key, "a transform of pytorch-3dunet", "ToTensor")
            meant = nearest(name, names)
            fix = write(key, completed({**step, "name": meant})) if meant else usable(view, key.partition("[")[0])
            yield Found(key, message, fix)
            continue
        given = {*step, *_OWN_ARGUMENTS, *_spelled(cls, step)}  # another rule finds a misspelled one
        for argument in introspection.required(cls):
            if argument not in given:
                yield Found(key, f"{cls.__name__} needs the argument {argument}", write(key, completed(step)))


def _class(step: Mapping[str, Any]) -> type | None:
    return introspection.transform_class(step.get("name"))


@family.rule("P3D302", "error", modes=BOTH)
def ignored_transform_argument(view: View) -> Iterator[Found]:
    """The transforms of pytorch-3dunet accept any argument and ignore those that they do not know: `spline_order`
    belongs to ElasticDeformation, `order` to RandomRotate; AdditiveGaussianNoise has `scale`, and ignores `std`.

    Example:
        loaders:
          train:
            transformer:
              label:
                - {name: RandomRotate, spline_order: 3}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              label:
                - {name: RandomRotate, order: 3}
                - {name: ToTensor, expand_dims: true}
    """
    for key, step in _all_steps(view):
        cls = _class(step)
        spelled = _spelled(cls, step) if cls else step
        for argument in step:
            if cls and argument not in spelled:
                meant, known = nearest(argument, _known(cls), 0.5), _known(cls)
                hint = f"did you mean {meant}?" if meant else f"it takes {', '.join(known) or 'none'}"
                message = f"{cls.__name__} ignores this argument; {hint}"
                yield Found(f"{key}.{argument}", message, write(key, completed(spelled)))


def _known(cls: type) -> list[str]:
    return [name for name in introspection.arguments(cls) if name not in ("random_state", "kwargs")]


def _spelled(cls: type, step: Mapping[str, Any]) -> dict[str, Any]:
    """A transform with each argument under the name that was meant, without those that are ignored."""
    spelled = {}
    for argument, value in step.items():
        is_known = argument in (*_known(cls), "name")
        meant = argument if is_known else nearest(argument, _known(cls), 0.5)
        if meant and (is_known or meant not in step):
            spelled[meant] = value
    return spelled


@family.rule("P3D308", "error")
def labels_moved_apart(view: View) -> Iterator[Found]:
    """Transforms that flip, rotate, deform or crop draw the same random numbers for raw volume and labels only if both
    lists have them in the same order and with the same arguments. Otherwise raw volume and labels are transformed
    differently: the labels of a patch belong to other voxels. The training runs, and the network learns a blur.

    Example:
        loaders:
          train:
            transformer:
              raw:
                - {name: Standardize}
                - {name: RandomFlip}
                - {name: ToTensor, expand_dims: true}
              label:
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              raw:
                - {name: Standardize}
                - {name: RandomFlip}
                - {name: ToTensor, expand_dims: true}
              label:
                - {name: RandomFlip}
                - {name: ToTensor, expand_dims: true}
    """
    for phase in view.phase_names if view.mode == "train" else ():
        moves = {kind: [_geometry(step) for step in _moves(view, phase, kind)] for kind in ("raw", "label")}
        if moves["raw"] != moves["label"]:
            raw, label = (", ".join(map(as_yaml, steps)) or "none" for steps in moves.values())
            steps = [step for _, step in steps_of(view, phase, "label")]
            others = [completed(step) for step in steps if str(step.get("name")) not in GEOMETRY]
            moved = [for_labels(view, step) for step in _moves(view, phase, "raw")]
            message = f"raw volume and labels are transformed differently: {raw} for the raw volume, {label} for labels"
            fix = write(f"loaders.{phase}.transformer.label", [*moved, *others])
            yield Found(f"loaders.{phase}.transformer", message, fix)


def _geometry(step: Mapping[str, Any]) -> dict[str, Any]:
    cls = _class(step)
    default = {name: introspection.default(cls, name) for name in GEOMETRY[step["name"]]} if cls else {}
    # an argument at its default changes nothing, whether it is written or not
    given = {name: step[name] for name in default if name in step and step[name] != default[name]}
    return {"name": step["name"], **given}


@family.rule("P3D309", "error", modes=BOTH, needs="volumes")
def transform_breaks(view: View) -> Iterator[Found]:
    """The rule applies all transforms to the first patch of each phase, including those that pytorch-3dunet applies at
    random. RandomContrast without `mean`, for example, receives None unless the config has `global_normalization`, and
    fails in one patch of ten: a training may run for hours before it stops.

    Example:
        loaders:
          train:
            transformer:
              raw:
                - {name: Standardize}
                - {name: RandomContrast}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loaders:
          train:
            transformer:
              raw:
                - {name: Standardize}
                - {name: RandomContrast, mean: 0.0}
                - {name: ToTensor, expand_dims: true}
    """
    found = {finding.key for finding in transform_not_understood(view)}
    for name, phase in view.phases.items():
        for key, error in phase.broken_transforms:
            place = f"loaders.{name}.transformer.{key}"
            if place not in found:
                yield Found(place, f"fails on the first patch: {error}", _repaired(view, name, key))


def _repaired(view: View, phase: str, key: str) -> Fix:
    """The first of some changes with which all transforms of a list survive the first patch."""
    place, kind = f"loaders.{phase}.transformer.{key}", key.partition("[")[0]
    steps = dict(steps_of(view, phase, kind))
    tried = [write(where, {**steps[where], **_TO_TENSOR}) for where in list(steps)[-1:]]
    tried.append(write(f"loaders.{phase}.transformer.{kind}[{len(steps)}]", _TO_TENSOR))
    if place in steps:
        step = steps[place]
        defaults = completed({argument: step[argument] for argument in step if argument in ("name", "expand_dims")})
        changed = [write(place, {**step, "mean": 0.0}), write(place, defaults)]
        changed += [delete(place)] if step.get("name") != "ToTensor" else []
        tried = [fix + more for more in (NO_FIX, tried[-1]) for fix in changed]
    for fix in tried:
        with suppress(Exception):  # whatever a transform raises
            broken = datasets.broken_transforms(fix.applied_to(view.config)["loaders"], phase)
            if not any(other.startswith(kind) for other, _ in broken):
                return fix
    files = ", ".join(file.path for file in view.phases[phase].files)
    return advise(f"look at the values in {files}, or write another transform in place of {place}")
