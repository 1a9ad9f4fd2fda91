"""The project's own rules."""

from itertools import chain

from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules import (
    augmentation,
    blending,
    checkpoint,
    course,
    files,
    intensity,
    label_transforms,
    labels,
    loss,
    loss_scale,
    metric,
    model,
    network,
    outputs,
    prediction,
    psnr,
    scaling,
    sections,
    shapes,
    statistics,
    training,
    transforms,
    unknown_keys,
    values,
)

_FAMILIES: dict[str, tuple[Family, ...]] = {
    "Model": (model.family, network.family),
    "Keys that nothing reads": (unknown_keys.family,),
    "Loss, metric, optimizer, trainer": (loss.family, metric.family, training.family, course.family, sections.family),
    "Transforms": (transforms.family, label_transforms.family, statistics.family, augmentation.family),
    "Files and shapes": (files.family, shapes.family),
    "Values of labels and raw volumes": (
        labels.family,
        values.family,
        intensity.family,
        loss_scale.family,
        psnr.family,
    ),
    "Checkpoints and prediction": (checkpoint.family, prediction.family, outputs.family, blending.family),
    "Target scaling": (scaling.family,),
}

#: By the chapters of the documentation.
CHAPTERS = {
    title: sorted(chain.from_iterable(family.rules for family in families), key=lambda rule: rule.code)
    for title, families in _FAMILIES.items()
}
