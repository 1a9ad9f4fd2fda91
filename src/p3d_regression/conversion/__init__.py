"""Volumes from one format to another, and the pairs of raw volumes and labels among files."""
