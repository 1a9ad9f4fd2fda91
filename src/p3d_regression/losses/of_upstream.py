"""pytorch-3dunet's own losses of masks and classes. Those of masks can be a part of a sum."""

from typing import Any

from p3d_regression.components.parameters import parameters_of
from p3d_regression.interval import REAL_LINE, UNIT
from p3d_regression.losses.loss import Loss
from p3d_regression.upstream.introspection import module_of

_HIDDEN = {
    "weight": "pytorch-3dunet's is for classes; here weight is the factor of a loss in a sum",
    "ignore_index": "it is the number of a class",
}

_DICE: dict[str, Any] = {
    "outputs": lambda arguments: UNIT if arguments.get("normalization") == "none" else REAL_LINE,
    "labels": UNIT,
    "compares": "fractions",
    "applies": lambda arguments: {"none": None}.get(found := arguments.get("normalization", "sigmoid"), found),
    "instead": {"normalization": "none"},
}

#: Name -> what is known of it.
_FACTS: dict[str, dict[str, Any]] = {
    "DiceLoss": {"summary": "pytorch-3dunet's: overlap of masks; normalization none for an output of sigmoid", **_DICE},
    "GeneralizedDiceLoss": {
        "summary": "pytorch-3dunet's: overlap of masks, rare ones count as much; see DiceLoss",
        **_DICE,
    },
    "BCEDiceLoss": {
        "summary": "pytorch-3dunet's: cross-entropy and overlap of masks, for an output of none",
        "labels": UNIT,
        "compares": "fractions",
        "applies": "sigmoid",
        "instead": {"name": "BCELoss"},
    },
    **{
        name: {
            "summary": "pytorch-3dunet's: classes, one per output channel",
            "compares": "classes",
            "applies": "softmax",
        }
        for name in ("CrossEntropyLoss", "WeightedCrossEntropyLoss")
    },
}


def losses() -> list[Loss]:
    from torch import nn

    module = module_of("pytorch3dunet.unet3d.losses")
    found = {name: getattr(module, name, getattr(nn, name, None)) for name in _FACTS}
    return [
        Loss(
            name,
            build,
            per_voxel=False,
            # 1.3 had no defaults for the factors of a sum
            example={p.name: 1.0 for p in parameters_of(build).values() if p.required},
            hidden=_HIDDEN,
            **_FACTS[name],
        )
        for name, build in found.items()
        if build is not None
    ]
