"""Losses of upstream's own that can stand beside others in a sum."""

from p3d_regression.components.parameters import parameters_of
from p3d_regression.interval import REAL_LINE, UNIT
from p3d_regression.losses.loss import Loss
from p3d_regression.upstream.introspection import module_of

_SUMMARIES = {
    "DiceLoss": "upstream's: overlap of masks; normalization none for an output of sigmoid",
    "GeneralizedDiceLoss": "upstream's: overlap of masks, rare ones count as much; see DiceLoss",
    "BCEDiceLoss": "upstream's: cross-entropy and overlap of masks, for an output of none",
}


def losses() -> list[Loss]:
    module = module_of("pytorch3dunet.unet3d.losses")
    return [
        Loss(
            name,
            getattr(module, name),
            summary=summary,
            per_voxel=False,
            outputs=lambda arguments: UNIT if arguments.get("normalization") == "none" else REAL_LINE,
            labels=UNIT,
            # 1.3 had no defaults for the factors of a sum
            example={p.name: 1.0 for p in parameters_of(getattr(module, name)).values() if p.required},
            hidden={"weight": "it would be of classes; a number beside the name weighs a whole term of a sum"},
        )
        for name, summary in _SUMMARIES.items()
        if hasattr(module, name)
    ]
