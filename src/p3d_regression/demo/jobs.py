"""What the demo can show: one job each, with the lines of its configs that are its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p3d_regression.demo.data import Brain, Part


@dataclass(frozen=True)
class Job:
    """A regression on the brain.

    Attributes:
        title: one sentence, the first line of the configs.
        raw, quantity: what the raw volume and the labels show, for the picture and the table.
        make: name of the function of :mod:`p3d_regression.demo.data` that makes a volume.
        model: lines of this section of the training config, without indentation.
        loss: its name.
        mean, std: what normalises the raw volumes, in their units; T1 goes from 0 to 1000.
        unit: of the labels; empty for arbitrary units.
        is_signed: 0 is in the middle of the colours, and a contour is drawn there.
        channels: of the output; 2 are a mean and a variance.
        augmentation: lines of the training's transformer for the raw volume, after it was normalised.
        training_doses: what multiplies the counts in the training; each part of the brain is in it once for each.
        dose: the same in validation and test.
    """

    title: str
    raw: str
    quantity: str
    make: str
    model: tuple[str, ...]
    loss: str = "MSELoss"
    mean: float = 500.0
    std: float = 500.0
    unit: str = ""
    is_signed: bool = False
    channels: int = 1
    augmentation: tuple[str, ...] = ()
    training_doses: tuple[float, ...] = (1.0,)
    dose: float = 1.0

    def files(self) -> dict[str, tuple[str, float]]:
        """Name of a file without its ending -> its part of the brain and its dose."""
        from p3d_regression.demo.data import PARTS

        found: dict[str, tuple[str, float]] = {}
        for part in PARTS:
            doses = self.training_doses if part.startswith("train") else (self.dose,)
            found |= {f"{part}_dose_{dose:g}" if len(doses) > 1 else part: (part, dose) for dose in doses}
        return found

    def parts(self, brain: "Brain") -> "dict[str, Part]":
        """The volumes, by the names of their files. Seeded: the same in each call."""
        import numpy as np

        from p3d_regression.demo import data

        make = getattr(data, self.make)
        return {
            name: make(brain.part(part), np.random.default_rng(seed), dose)
            for seed, (name, (part, dose)) in enumerate(self.files().items())
        }


_NONE = "final_activation: none  # this line and the next need p3d-regression"
_STANDARDIZE = "target_scaling: standardize  # trains on standardised labels; loss, scores and predictions stay in mm"
_RESIDUAL = "target_scaling: residual  # raw volume + what the network predicts: absolute intensities count"

#: For comparison: the last layers of pytorch-3dunet -> the line of the section model.
UPSTREAMS_LAYERS = {
    "sigmoid": "final_sigmoid: true  # the default of pytorch-3dunet",
    "softmax": "final_sigmoid: false  # a Softmax, which is 1.0 everywhere on one channel",
}

JOBS = {
    "distance": Job(
        title="Signed distance to white matter in mm from a T1-weighted MRI",
        raw="T1",
        quantity="Signed distance to white matter in mm",
        unit="mm",
        make="distance",
        model=(_NONE, _STANDARDIZE),
        is_signed=True,
        # clips at -1 and 1, where mean and std put the ends of T1
        augmentation=("{name: RandomContrast, alpha: [0.9, 1.1], mean: 0, execution_probability: 1}",),
    ),
    "denoise": Job(
        title="T1-weighted MRI without its noise",
        raw="noisy T1",
        quantity="T1 intensity",
        make="denoise",
        model=(_NONE, _RESIDUAL),
    ),
    "counts": Job(
        title="Expected counts from a short PET scan, at a dose that the training did not have",
        raw="counts of a short scan",
        quantity="Expected counts",
        make="counts",
        model=(_NONE, _RESIDUAL),
        mean=20.0,
        std=20.0,
        training_doses=(1.0, 4.0),
        dose=2.0,
    ),
    "uncertainty": Job(
        title="T1-weighted MRI without its noise, and a standard deviation of the error for each voxel",
        raw="noisy T1",
        quantity="T1 intensity",
        make="uneven",
        model=("final_activation: [none, softplus]  # mean, variance", "target_scaling: [residual, standardize]"),
        loss="GaussianNLLLoss",
        channels=2,
    ),
}
