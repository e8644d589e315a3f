"""Takes out what only people and type checkers read: annotations, TYPE_CHECKING blocks, assertions."""

from __future__ import annotations

import ast

from simpang.squeeze.text import Edits, Source

_FLAG = "TYPE_CHECKING"


def strip(source: Source) -> Source:
    """Return the source without types and assertions."""
    edits = Edits()
    removed: set[ast.stmt] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == _FLAG:
            if node.orelse:
                # `if 1:` costs nothing: the compiler knows how it ends.
                start, _ = source.span(node)
                first, _ = source.span(node.orelse[0])
                line = source.text.rindex("\n", 0, first) + 1
                edits.replace((start, first), "if 1:" + "\n" * source.text.count("\n", start, first))
                edits.made[(start, first)] += source.text[line:first]
            else:
                removed.add(node)
        elif (isinstance(node, ast.Assign) and _names(node.targets) == [_FLAG]) or isinstance(
            node, ast.Assert
        ):
            removed.add(node)
        elif isinstance(node, ast.AnnAssign):
            if node.value is None:
                removed.add(node)
            else:
                _, end = source.span(node.target)
                start, _ = source.span(node.value)
                edits.replace((end, source.text.rindex("=", end, start)), " ")
        elif isinstance(node, ast.arg) and node.annotation is not None:
            start, end = source.span(node)
            edits.replace((start + len(node.arg.encode()), end), "")
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            start, end = source.span(node.returns)
            edits.replace((source.text.rindex("->", 0, start), end), "")
    inside = [source.span(statement) for statement in removed]
    for span in list(edits.made):
        if any(start <= span[0] and span[1] <= end for start, end in inside):
            del edits.made[span]
    removed = {node for node in removed if not _within(source, node, inside)}
    edits.remove_statements(source, removed)
    # What the checker alone takes of an `if TYPE_CHECKING ... else`.
    return _without_inner(source, edits)


def _names(targets: list[ast.expr]) -> list[str | None]:
    return [target.id if isinstance(target, ast.Name) else None for target in targets]


def _within(source: Source, node: ast.stmt, spans: list[tuple[int, int]]) -> bool:
    own = source.span(node)
    return any(start <= own[0] and own[1] <= end and (start, end) != own for start, end in spans)


def _without_inner(source: Source, edits: Edits) -> Source:
    """Drop edits that lie inside a longer one."""
    spans = sorted(edits.made, key=lambda span: (span[0], -span[1]))
    end = -1
    for span in spans:
        if span[1] <= end:
            del edits.made[span]
        end = max(end, span[1])
    return source.edited(edits)
