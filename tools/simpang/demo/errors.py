"""The error of the demo."""


class DemoError(Exception):
    """The demo cannot go on; the text names the cause and the next step."""
