"""Transforms of pytorch-3dunet: which are random, which look at single voxels, and which fail on a patch."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

from p3d_regression.upstream import introspection

_RANDOM = ("RandomFlip", "RandomRotate90", "RandomRotate")


def is_random(step: Mapping[str, Any]) -> bool:
    """Whether a transform, as a config names it, draws random numbers."""
    cls = introspection.transform_class(step.get("name"))
    return cls is not None and (cls.__name__ in _RANDOM or "execution_probability" in introspection.arguments(cls))


def is_upstreams(step: Mapping[str, Any]) -> bool:
    """Whether a transform is one of pytorch-3dunet's own."""
    cls = introspection.transform_class(step.get("name"))
    return cls is not None and cls.__module__ == "pytorch3dunet.augment.transforms"


def decisive(step: Mapping[str, Any]) -> dict[str, Any]:
    """A transform with all its arguments, as far as they decide what becomes of values: equal where it does the same.

    How axes are added follows from the file, and is left out.
    """
    cls = introspection.transform_class(step.get("name"))
    if cls is None:
        return dict(step)
    names = [name for name in introspection.arguments(cls) if name not in ("random_state", "expand_dims")]
    found = {name: step.get(name, introspection.default(cls, name)) for name in names}
    if "dtype" in found:
        with suppress(TypeError):
            found["dtype"] = np.dtype(found["dtype"]).name
    return {"name": step["name"], **found}


def takes_statistics(step: Mapping[str, Any]) -> bool:
    """Whether a transform uses statistics of the volume, which its own arguments do not give."""
    statistics = {"mean", "std", "pmin", "pmax"} & arguments_of([step])
    return any(step.get(name) is None for name in statistics)


def moves(step: Mapping[str, Any]) -> bool:
    """Whether a transform, as a config names it, moves voxels at random."""
    return step.get("name") in (*_RANDOM, "ElasticDeformation")


def scales(step: Mapping[str, Any]) -> bool:
    """Whether a transform, as a config names it, gives values other units."""
    names = ("Standardize", "Normalize", "PercentileNormalizer")
    return step.get("name") in names or (step.get("name") == "ToTensor" and bool(step.get("normalize")))


def by_statistics(step: Mapping[str, Any]) -> bool:
    """Whether a transform, as a config names it, scales each patch or volume by its own statistics."""
    match step.get("name"):
        case "Standardize":
            return step.get("mean") is None or step.get("std") is None
        case "Normalize":
            return step.get("min_value") is None or step.get("max_value") is None
        case "ToTensor":
            return bool(step.get("normalize"))
        case name:
            return name == "PercentileNormalizer"


def centred(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """A transform without the choice of a random crop."""
    return {**step, "centered": True} if step.get("name") == "CropToFixed" else step


def is_voxelwise(step: Any) -> bool:
    """Whether an instance of a label transform looks at each voxel on its own."""
    match type(step).__name__:
        case "ToTensor":
            return not step.normalize
        case "Standardize":
            return step.mean is not None
        case "Normalize":
            return step.min_value is not None and step.max_value is not None
        case "Identity" | "LabelToTensor":
            return True
    return False


def arguments_of(steps: list[Mapping[str, Any]]) -> set[str]:
    """The arguments that the classes of some transforms take, statistics of the volume among them."""
    return {
        name
        for step in steps
        for name in introspection.arguments(introspection.transform_class(step.get("name")) or object)
    }


def failures_of(
    phase: str, kind: str, steps: list[Any], statistics: dict[str, Any], patch: Any
) -> Iterator[tuple[str, str]]:
    """Apply transforms of ``raw`` or ``label`` one after the other to a patch.

    Yields:
        Key below ``transformer`` and error of the first one that fails, or of a result that does not fit.
    """
    module = import_module("pytorch3dunet.augment.transforms")
    for index, step in enumerate(steps):
        try:
            with introspection.quiet(), np.errstate(all="ignore"):
                (transform,) = module.Transformer({kind: [step]}, statistics)._create_transform(kind).transforms
                if getattr(transform, "execution_probability", 0) > 0:
                    transform.execution_probability = 1.0
                patch = transform(patch)
        except Exception as error:
            yield f"{kind}[{index}]", f"{type(error).__name__}: {error}"
            return
    if phase == "test" and type(patch).__module__.partition(".")[0] != "torch":
        yield kind, "the last transform does not return a tensor; it must be ToTensor"
    elif kind == "raw" and len(shape := tuple(patch.shape)) != 4:
        yield kind, f"the result has the shape {shape}, not (C, D, H, W); write expand_dims: true in ToTensor"
