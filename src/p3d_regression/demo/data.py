"""The demo's data: MNI152 T1 template and the signed distance to white matter, one file per hemisphere.

The templates (McGill ICBM 152 2009a, at 1 mm) are a part of nilearn; nothing is downloaded.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

Volume = npt.NDArray[np.float32]

#: The demo works on every second voxel of the 1 mm templates, so that it takes minutes and not hours.
_STEP = 2


@dataclass(frozen=True)
class Hemisphere:
    """One half of the brain, cut out with its bounding box.

    Attributes:
        raw: T1 intensity, shape (D, H, W) = (left-right, back-front, bottom-top), arbitrary units.
        label: signed distance to the white-matter boundary, negative inside, in voxels of the 1 mm template, that
            is in mm; same shape.
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


def load_hemispheres() -> tuple[Hemisphere, Hemisphere]:
    """Return the left and the right hemisphere, sampled every 2 mm.

    The distance is taken in the whole brain at full resolution, so that neither half sees a false border.
    """
    from nilearn import datasets

    t1 = datasets.load_mni152_template(resolution=1)
    grey = _values(datasets.load_mni152_gm_template(resolution=1))
    white = _values(datasets.load_mni152_wm_template(resolution=1))
    raw, label = _values(t1), signed_distance(white > 0.5)
    x, *others = _bounding_box(grey + white > 0.5)
    # the first axis runs from left to right; x = 0 mm is the plane between the hemispheres
    middle = round(-t1.affine[0, 3] / t1.affine[0, 0])
    halves = (slice(x.start, middle), *others), (slice(middle + 1, x.stop), *others)
    left, right = (tuple(slice(s.start, s.stop, _STEP) for s in half) for half in halves)
    return Hemisphere(raw[left], label[left]), Hemisphere(raw[right], label[right])


def signed_distance(inside: npt.NDArray[np.bool_]) -> Volume:
    """Euclidean distance in voxels from each voxel's centre to the boundary of a mask, negative inside.

    The boundary runs between the voxels, half a voxel from the centres on either side of it.

    >>> signed_distance(np.array([False, False, True, True, True, False])).tolist()
    [1.5, 0.5, -0.5, -1.5, -0.5, 0.5]
    """
    outwards, inwards = distance_transform_edt(~inside), distance_transform_edt(inside)
    distance: Volume = np.where(inside, 0.5 - inwards, outwards - 0.5).astype(np.float32)
    return distance


def _values(image: Any) -> Volume:
    values: Volume = image.get_fdata(dtype=np.float32)
    return values


def _bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    corners = np.argwhere(mask)
    return tuple(slice(low, high + 1) for low, high in zip(corners.min(0), corners.max(0), strict=True))
