"""``p3d-regression demo``: the main job, on a real brain MRI, through upstream's own commands."""
