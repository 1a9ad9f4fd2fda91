"""pytorch-3dunet's own logger, for lines that the user should see among its own."""

import logging

from p3d_regression._version import __version__


def say(line: str) -> None:
    """Tell the user what the plugin did, in a line of the log."""
    console().info(f"p3d-regression {__version__}: {line}")


def console() -> logging.Logger:
    """The logger for what the user should see: its lines are printed among upstream's, and like them."""
    from pytorch3dunet.unet3d.utils import get_logger

    logger: logging.Logger = get_logger("P3DRegression")
    return logger
