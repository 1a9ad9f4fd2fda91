"""Rules about numbers of a loss in the units of the labels, against the labels themselves. These read the volumes."""

from collections.abc import Iterator

from p3d_regression.checks.rule import Family
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import write
from p3d_regression.labels.moments import Moments
from p3d_regression.scaling.terms import single
from p3d_regression.text import as_yaml

family = Family()

#: Relative to the spread of the labels: a threshold below it is never reached by an error that matters.
_TOO_SMALL = 0.01


@family.rule("P3D517", "warning", needs="volumes")
def threshold_far_from_labels(view: View) -> Iterator[Found]:
    """The `delta` of HuberLoss and the `beta` of SmoothL1Loss are in the units of the labels: errors below are squared,
    larger ones count as they are. Far below the spread of the labels the loss is an L1 loss, and far above it a squared
    one, whatever its name says.

    Example:
        loss: {name: HuberLoss, delta: 0.001}

    Use instead:
        loss: {name: HuberLoss, delta: 8.0}
    """
    statistics = view.phases["train"].statistics if "train" in view.phases else None
    loss = view.plan.described
    if statistics is None or not statistics.complete or loss is None or not view.is_regression:
        return
    labels = [found for found in statistics.channels if found.finite and found.std > 0]
    for leaf in loss.leaves:
        for name, unit in leaf.component.units.items():
            value = leaf.arguments.get(name)
            if unit != "difference" or not isinstance(value, int | float) or len(statistics.channels) != 1:
                continue
            if labels and (acts := _acts_as(float(value), labels[0])):
                message = (
                    f"is {as_yaml(value)}, but the labels have the std {labels[0].std:.4g}: {leaf.component.name} acts "
                    f"as {acts}"
                )
                yield Found(f"{leaf.place}.{name}", message, write(f"{leaf.place}.{name}", single(labels[0].std)))


def _acts_as(threshold: float, labels: Moments) -> str:
    if 0 < threshold < _TOO_SMALL * labels.std:
        return "an L1 loss"
    return "a squared loss" if threshold > labels.high - labels.low else ""
