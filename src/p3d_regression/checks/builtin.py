"""The project's own rules."""

from p3d_regression.checks import files, labels, model, prediction, training, transforms
from p3d_regression.checks.rule import Rule
from p3d_regression.hookspecs import hookimpl

#: Chapters of the documentation, by the first digit of the codes.
FAMILIES = {
    "1": ("Model", model.family),
    "2": ("Loss, metric, optimizer, trainer", training.family),
    "3": ("Transforms", transforms.family),
    "4": ("Files and shapes", files.family),
    "5": ("Values of labels and raw volumes", labels.family),
    "6": ("Prediction", prediction.family),
}


@hookimpl
def p3d_rules() -> list[Rule]:
    return [rule for _, family in FAMILIES.values() for rule in family.rules]
