"""Both halves of the MNI152 brain, for benchmarks."""

from typing import Literal

import numpy as np

from p3d_regression.demo.data import Part, signed_distance

#: In voxels of 1 mm; the left half ends before it, the right half begins after it.
_MIDDLE = 98


def hemispheres(box: Literal["brain", "tissue"]) -> tuple[Part, Part]:
    """T1 and signed distance to white matter in mm of the left and the right half, every 2 mm.

    Args:
        box: cut out with the bounding box of the brain mask, or of grey and white matter.
    """
    from nilearn import datasets

    t1, grey, white, mask = (
        load(resolution=1).get_fdata(dtype=np.float32)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    corners = np.argwhere((mask if box == "brain" else grey + white) > 0.5)
    (left, *low), (right, *high) = corners.min(0), corners.max(0) + 1
    others = [slice(a, b, 2) for a, b in zip(low, high, strict=True)]
    distance = signed_distance(white > 0.5)
    halves = ((slice(left, _MIDDLE, 2), *others), (slice(_MIDDLE + 1, right, 2), *others))
    first, second = (Part(t1[half], distance[half]) for half in halves)
    return first, second
