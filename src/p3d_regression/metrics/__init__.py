"""Metrics that a config may name, right over a whole validation."""
