"""The demo's own failure."""


class DemoError(RuntimeError):
    """The demo cannot start or go on; the message says why, in the user's terms."""
