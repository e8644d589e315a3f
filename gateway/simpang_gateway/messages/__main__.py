"""Prints docs/errors.md."""

from . import to_markdown

print(to_markdown(), end="")
