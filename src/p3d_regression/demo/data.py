"""The demo's data: the MNI152 brain in four parts, and what each job makes of it.

The templates (McGill ICBM 152 2009a, at 1 mm) are a part of nilearn; nothing is downloaded.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter

Volume = npt.NDArray[np.float32]

#: The demo works on every second voxel of the 1 mm templates, so that it takes minutes and not hours.
_STEP = 2

#: Name -> begin and end as shares of the length of the brain, from its back to its front. The template is symmetric: a
#: split into left and right would test on the mirror image of the training data.
PARTS = {"train_back": (0.0, 0.53), "val": (0.53, 0.62), "test": (0.65, 0.87), "train_front": (0.89, 1.0)}


@dataclass(frozen=True)
class Part:
    """A volume for pytorch-3dunet.

    Attributes:
        raw: shape (D, H, W) = (back-front, bottom-top, left-right).
        label: same shape; NaN outside the brain, where the template holds no tissue.
    """

    raw: Volume
    label: Volume

    def write(self, path: Path) -> None:
        """Write the datasets ``raw`` and ``label`` as HDF5, as pytorch-3dunet expects them."""
        # in memory first: HDF5 ends the process with a segmentation fault where it cannot write
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            file.create_dataset("raw", data=self.raw, compression="gzip")
            file.create_dataset("label", data=self.label, compression="gzip")
        path.write_bytes(content.getbuffer())


@dataclass(frozen=True)
class Brain:
    """The template, or a part of it; all of shape (D, H, W) = (back-front, bottom-top, left-right).

    Attributes:
        t1: T1-weighted intensity, 0 to 1000; 0 outside the brain.
        grey, white: probability of both tissues.
        distance: signed distance to the white-matter boundary in mm, negative inside.
        inside: the voxels of the brain.
    """

    t1: Volume
    grey: Volume
    white: Volume
    distance: Volume
    inside: npt.NDArray[np.bool_]

    def part(self, name: str) -> "Brain":
        """A part of :data:`PARTS`."""
        low, high = (round(share * len(self.t1)) for share in PARTS[name])
        return Brain(*(volume[low:high] for volume in vars(self).values()))

    def label(self, values: npt.NDArray[Any]) -> Volume:
        """The values inside the brain, NaN outside."""
        known: Volume = np.where(self.inside, values, np.nan).astype(np.float32)
        return known


def load_brain() -> Brain:
    """The brain, cut out with its bounding box, sampled every 2 mm.

    Distances are taken in the whole brain at full resolution, so that no part sees a false border.
    """
    from nilearn import datasets

    t1, grey, white, mask = (
        np.moveaxis(image.get_fdata(dtype=np.float32), 0, -1)
        for image in (
            datasets.load_mni152_template(resolution=1),
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
            datasets.load_mni152_brain_mask(resolution=1),
        )
    )
    inside = mask > 0
    corners = np.argwhere(inside)
    box = tuple(slice(low, high + 1, _STEP) for low, high in zip(corners.min(0), corners.max(0), strict=True))
    volumes = (1000 * t1 * inside, grey, white, signed_distance(white > 0.5), inside)
    return Brain(*(np.ascontiguousarray(volume[box]) for volume in volumes))


def signed_distance(inside: npt.NDArray[np.bool_]) -> Volume:
    """Euclidean distance in voxels from each voxel's centre to the boundary of a mask, negative inside.

    The boundary runs between the voxels, half a voxel from the centres on either side of it.

    >>> signed_distance(np.array([False, False, True, True, True, False])).tolist()
    [1.5, 0.5, -0.5, -1.5, -0.5, 0.5]
    """
    outwards, inwards = distance_transform_edt(~inside), distance_transform_edt(inside)
    distance: Volume = np.where(inside, 0.5 - inwards, outwards - 0.5).astype(np.float32)
    return distance


def distance(brain: Brain, draw: np.random.Generator, dose: float) -> Part:
    """T1 -> signed distance to the white-matter boundary, in mm."""
    return Part(brain.t1, brain.label(brain.distance))


def denoise(brain: Brain, draw: np.random.Generator, dose: float) -> Part:
    """T1 with Rician noise of 100 -> T1."""
    return Part(_rician(brain.t1, 100.0, draw), brain.label(brain.t1))


def uneven(brain: Brain, draw: np.random.Generator, dose: float) -> Part:
    """T1 with Rician noise -> T1; the noise grows from 40 to 160 from the surface to the middle of the head.

    So does that of a fast scan with several receiver coils around the head.
    """
    _, height, width = brain.t1.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    sigma = 40 + 120 * np.clip(1 - np.hypot(y, x), 0, 1)
    return Part(_rician(brain.t1, sigma, draw), brain.label(brain.t1))


def counts(brain: Brain, draw: np.random.Generator, dose: float) -> Part:
    """Counts of a short PET scan -> the counts that are to be expected.

    Grey matter takes up four times as much of the tracer as white matter does; the scanner blurs it (5 mm FWHM).
    """
    uptake = gaussian_filter(4 * brain.grey + brain.white, 5 / _STEP / 2.355)
    expected = 6 * dose * uptake
    return Part(draw.poisson(expected).astype(np.float32), brain.label(expected))


def _rician(volume: Volume, sigma: Any, draw: np.random.Generator) -> Volume:
    """The magnitude of a complex image with noise, as MRI measures it."""
    real, imaginary = draw.normal(size=(2, *volume.shape)) * sigma
    noisy: Volume = np.hypot(volume + real, imaginary).astype(np.float32)
    return noisy
