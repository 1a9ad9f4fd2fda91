"""From predictions to numbers: scores of whole volumes, baselines, calibration, a report."""
