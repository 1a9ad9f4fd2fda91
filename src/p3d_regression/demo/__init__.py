"""``p3d-regression demo``: the main job, on a real brain MRI, with the commands of pytorch-3dunet."""
