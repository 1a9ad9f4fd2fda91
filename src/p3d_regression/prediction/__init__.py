"""Predictions of whole volumes from overlapping patches."""
