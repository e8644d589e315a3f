"""What goes wrong when a program is squeezed."""


class SqueezeError(Exception):
    """A source cannot be squeezed: it does not parse, or does what squeezing would break.

    `module` is its name.
    """

    def __init__(self, module: str, line: int | None, reason: str) -> None:
        super().__init__(f"{module}, line {line}: {reason}" if line else f"{module}: {reason}")
        self.module = module
