"""The version of this project, in its one place."""

__version__ = "0.3.0"
