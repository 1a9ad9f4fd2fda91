"""Losses that a config may name, right for continuous labels: masked voxels have no gradient and do not count."""
