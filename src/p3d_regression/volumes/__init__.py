"""Volumes as they are stored: HDF5 files and Zarr arrays, read in parts."""
