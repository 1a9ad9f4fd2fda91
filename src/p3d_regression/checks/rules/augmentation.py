"""Rules about random augmentation that repeats itself, or turns vectors without their components."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from p3d_regression.checks.rule import Family
from p3d_regression.checks.rules.labels import label_channels
from p3d_regression.checks.rules.transforms import deleted, steps_of
from p3d_regression.checks.view import View
from p3d_regression.errors import Found
from p3d_regression.fix import write
from p3d_regression.labels.moments import Moments
from p3d_regression.upstream import transforms

family = Family()

#: Transforms that turn or mirror a patch.
_TURNING = ("RandomFlip", "RandomRotate90", "RandomRotate")


@family.rule("P3D313", "warning")
def augmentation_repeats(view: View) -> Iterator[Found]:
    """With `num_workers` of 1 or more, pytorch-3dunet starts new worker processes in every epoch, each with random
    generators in their first state: every epoch draws the same flips, rotations and noise as the first. Trainings that
    use a key of this project draw anew in each epoch.

    Example:
        loss: {name: MSELoss}
        loaders:
          num_workers: 2
          train:
            transformer:
              raw:
                - {name: AdditiveGaussianNoise, scale: [0.0, 1.0]}
                - {name: ToTensor, expand_dims: true}

    Use instead:
        loss: {name: MSELoss}
        model: {final_activation: none}
        loaders:
          num_workers: 2
          train:
            transformer:
              raw:
                - {name: AdditiveGaussianNoise, scale: [0.0, 1.0]}
                - {name: ToTensor, expand_dims: true}
    """
    workers = view.get("loaders.num_workers", 1)
    # on macOS the workers live as long as the training
    if view.plan.is_ours or not view.is_regression or not isinstance(workers, int) or sys.platform == "darwin":
        return
    random = [step["name"] for _, step in steps_of(view, "train", "raw") if _draws(step)]
    if workers >= 1 and random:
        message = f"is {workers}: every epoch repeats the random numbers of the first in {', '.join(random)}"
        fix = write("loaders.num_workers", 0)
        if view.last_layer.name == "none":
            fix = view.with_activation("none")
        yield Found("loaders.num_workers", message, fix)


def _draws(step: Mapping[str, Any]) -> bool:
    return transforms.is_random(step) and step.get("execution_probability") != 0


@family.rule("P3D314", "warning", needs="volumes")
def vectors_turned(view: View) -> Iterator[Found]:
    """Flips and rotations move the voxels of labels and leave their values as they are. For components of vectors, such
    as displacements, gradients or orientations, that is wrong: where the volume is mirrored along X, the X component
    has to change its sign. The network learns the mean of both signs, which is 0. pytorch-3dunet has no transform that
    turns components.

    Example:
        model:
          out_channels: 3
        loaders:
          label_internal_path: directions
          train:
            transformer:
              raw: [{name: RandomFlip}, {name: ToTensor, expand_dims: true}]
              label: [{name: RandomFlip}, {name: ToTensor, expand_dims: false}]

    Use instead:
        model:
          out_channels: 3
        loaders:
          label_internal_path: directions
          train:
            transformer:
              raw: [{name: ToTensor, expand_dims: true}]
              label: [{name: ToTensor, expand_dims: false}]
    """
    turning = {
        kind: [(key, step) for key, step in steps_of(view, "train", kind) if step.get("name") in _TURNING]
        for kind in ("raw", "label")
    }
    phase = view.phases.get("train")
    if not turning["label"] or phase is None or not view.is_regression:
        return
    channels = [labels for name, _, _, labels in label_channels(view) if name == "train"]
    what = ""
    if len(channels) in (2, 3) and phase.directions is not None and phase.directions.are_units:
        what = "unit vectors"
    elif len(channels) in (2, 3) and all(map(_is_signed_around_zero, channels)):
        what = "components of vectors"
    if what:
        key = turning["label"][0][0]
        message = (
            f"{turning['label'][0][1]['name']} moves the voxels of the labels, and leaves their signs; the "
            f"{len(channels)} channels of the labels look like {what}"
        )
        fix = deleted(turning["label"], key)
        if turning["raw"]:
            fix += deleted(turning["raw"], turning["raw"][0][0])
        yield Found(key, message, fix)


def _is_signed_around_zero(labels: Moments) -> bool:
    ends = sorted((-labels.low, labels.high))
    return ends[0] > 0.3 * ends[1] and abs(labels.mean) < 0.2 * labels.std
