"""Source text, and edits of it that leave every other line where it is."""

from __future__ import annotations

import ast

from simpang.squeeze.errors import SqueezeError

Span = tuple[int, int]


class Source:
    """One module: `name` with dots, `package` for an __init__.py, its `text` and its syntax tree."""

    def __init__(self, name: str, package: bool, text: str) -> None:
        self.name = name
        self.package = package
        self.text = text
        try:
            self.tree = ast.parse(text)
        except SyntaxError as error:
            raise SqueezeError(name, error.lineno, f"SyntaxError: {error.msg}") from error
        self._lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def place(self, line: int, column: int) -> int:
        """Index into the text of a position as `ast` gives it: lines from 1, columns in bytes."""
        text = self._lines[line - 1] if line <= len(self._lines) else ""
        if not text.isascii():
            column = len(text.encode()[:column].decode())
        return self._starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword | ast.alias) -> Span:
        """Where a node stands in the text; a definition with its decorators."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self.place(node.lineno, node.col_offset)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.decorator_list:
            first = node.decorator_list[0]
            start = self.text.rindex("@", 0, self.place(first.lineno, first.col_offset))
        return start, self.place(node.end_lineno, node.end_col_offset)

    def parent(self, level: int) -> str:
        """The package that a relative import of so many dots begins at."""
        parts = self.name.split(".")
        drop = level - 1 if self.package else level
        return ".".join(parts[: len(parts) - drop])

    def edited(self, edits: Edits) -> Source:
        """This module after the edits."""
        return Source(self.name, self.package, edits.apply(self)) if edits.made else self


class Edits:
    """Replacements in one source. None may overlap another; each keeps the number of lines."""

    def __init__(self) -> None:
        self.made: dict[Span, str] = {}

    def replace(self, span: Span, text: str) -> None:
        """Put `text` in place of a span."""
        self.made[span] = text

    def apply(self, source: Source) -> str:
        """Return the text after all edits."""
        parts = []
        at = 0
        for (start, end), text in sorted(self.made.items()):
            if start < at:
                raise SqueezeError(source.name, None, f"edits overlap at {source.text[start:end]!r}")
            parts.append(source.text[at:start])
            parts.append(text + "\n" * (source.text.count("\n", start, end) - text.count("\n")))
            at = end
        parts.append(source.text[at:])
        return "".join(parts)

    def remove_statements(self, source: Source, removed: set[ast.stmt]) -> None:
        """Take statements out; a block that would be empty gets a `pass`."""
        for node in ast.walk(source.tree):
            for _, body in ast.iter_fields(node):
                if not (isinstance(body, list) and body and isinstance(body[0], ast.stmt)):
                    continue
                gone = [statement for statement in body if statement in removed]
                for statement in gone:
                    self.replace(source.span(statement), "")
                if gone and len(gone) == len(body) and not isinstance(node, ast.Module):
                    self.replace(source.span(gone[0]), "pass")
