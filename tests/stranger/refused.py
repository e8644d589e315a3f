"""How this implementation says that something is refused, and why."""


class Refused(Exception):
    """An input that MUST be refused; `cause` is the name that SPEC.md or the vectors give."""

    def __init__(self, cause: str):
        super().__init__(cause)
        self.cause = cause
