"""The errors a user can meet. Their messages name the key, the value, what is allowed and the likely fix."""


class ConfigError(ValueError):
    """A value in the configuration that is not understood, or that contradicts the rest of it."""


class CheckpointMismatchError(ConfigError):
    """The configuration asks for another final activation or scaling than the checkpoint was trained with."""


class ExportError(RuntimeError):
    """A checkpoint cannot be written in another form; nothing was written."""


class NonFiniteLossError(RuntimeError):
    """The loss of a batch is NaN or infinite; training has stopped before the weights became so too."""


class UnsupportedUpstreamError(RuntimeError):
    """The installed pytorch3dunet lacks what a used configuration key needs, or has changed it."""


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why and what to do."""
