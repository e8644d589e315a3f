"""The error of the virtual rig."""


class RigError(Exception):
    """The rig cannot do what was asked; the text names the cause and the next step."""
