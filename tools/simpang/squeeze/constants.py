"""Writes whole numbers where their names stand: `_RETRY_MS` becomes 250, and its definition can go."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from simpang.squeeze.errors import SqueezeError
from simpang.squeeze.scopes import Scopes
from simpang.squeeze.text import Edits, Source

Values = dict[str, dict[str, int]]


def inline(sources: Mapping[str, Source], values: Values | None = None) -> dict[str, Source]:
    """Return the sources with every module constant that is a whole number written out where it is used.

    The definitions stay: who still needs them, shake.py knows. `values` are those of `find`.
    """
    values = find(sources) if values is None else values
    return {name: _inline(source, sources, values) for name, source in sources.items()}


def find(sources: Mapping[str, Source]) -> Values:
    """The constants of each module: names in capitals, assigned once, a whole number."""
    values: Values = {name: {} for name in sources}
    candidates = {name: _candidates(source) for name, source in sources.items()}
    imported = {name: imports(source, sources) for name, source in sources.items()}
    before = -1
    while (now := sum(map(len, values.values()))) != before:
        before = now
        for name, found in candidates.items():
            for constant, expression in found.items():
                if constant not in values[name]:
                    value = _evaluate(
                        expression, _known(name, values, imported[name]), imported[name], values
                    )
                    if value is not None:
                        values[name][constant] = value
    return values


class Imports:
    """What the import statements at the top of a module bind, of the modules of the program:
    `modules` name -> module, `members` name -> (module, name there)."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self.members: dict[str, tuple[str, str]] = {}


def imports(source: Source, sources: Mapping[str, Source]) -> Imports:
    """Read the imports at the top of a module."""
    out = Imports()
    for statement in source.tree.body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.name in sources and (alias.asname or "." not in alias.name):
                    out.modules[alias.asname or alias.name] = alias.name
        elif isinstance(statement, ast.ImportFrom):
            origin = origin_of(statement, source)
            for alias in statement.names:
                below = f"{origin}.{alias.name}"
                if below in sources:
                    out.modules[alias.asname or alias.name] = below
                elif origin in sources:
                    out.members[alias.asname or alias.name] = (origin, alias.name)
    return out


def origin_of(statement: ast.ImportFrom, source: Source) -> str:
    """The module that a `from` names, with all its dots resolved."""
    if not statement.level:
        return statement.module or ""
    parent = source.parent(statement.level)
    return ".".join(part for part in (parent, statement.module) if part)


def _known(name: str, values: Values, imported: Imports) -> dict[str, int]:
    known = dict(values[name])
    for bound, (module, member) in imported.members.items():
        if member in values[module]:
            known[bound] = values[module][member]
    return known


def _candidates(source: Source) -> dict[str, ast.expr]:
    """Names in capitals that the module assigns once, at its top, with what they are assigned."""
    found: dict[str, ast.expr] = {}
    times: dict[str, int] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            times[node.id] = times.get(node.id, 0) + 1
    for statement in source.tree.body:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            continue
        target, value = statement.targets[0], statement.value
        if isinstance(target, ast.Name):
            found[target.id] = value
        elif isinstance(target, ast.Tuple):
            names = [item.id for item in target.elts if isinstance(item, ast.Name)]
            if len(names) != len(target.elts):
                continue
            if isinstance(value, ast.Tuple):
                found.update(zip(names, value.elts, strict=True))
            elif _is_range(value):
                found.update((name, ast.Constant(i)) for i, name in enumerate(names))
    return {name: value for name, value in found.items() if name.isupper() and times[name] == 1}


def _is_range(value: ast.expr) -> bool:
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id == "range"
        and len(value.args) == 1
    )


def _evaluate(node: ast.expr, known: dict[str, int], imported: Imports, values: Values) -> int | None:
    """The whole number that an expression is, None where it is not one."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return values.get(imported.modules.get(node.value.id, ""), {}).get(node.attr)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert)):
        value = _evaluate(node.operand, known, imported, values)
        return None if value is None else (-value if isinstance(node.op, ast.USub) else ~value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left = _evaluate(node.left, known, imported, values)
        right = _evaluate(node.right, known, imported, values)
        if left is not None and right is not None:
            return int(_OPERATIONS[type(node.op)](left, right))
    return None


_OPERATIONS = {
    ast.Add: int.__add__,
    ast.Sub: int.__sub__,
    ast.Mult: int.__mul__,
    ast.FloorDiv: int.__floordiv__,
    ast.LShift: int.__lshift__,
    ast.RShift: int.__rshift__,
    ast.BitOr: int.__or__,
    ast.BitAnd: int.__and__,
}


def _inline(source: Source, sources: Mapping[str, Source], values: Values) -> Source:
    imported = imports(source, sources)
    known = _known(source.name, values, imported)
    scopes = Scopes(source.tree)
    edits = Edits()
    inside = {
        id(part)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
    }
    modules = {}
    for use in scopes.uses:
        if use.owner is not None:
            continue
        node = use.node
        if node.id in known and isinstance(node.ctx, ast.Load):
            if id(node) not in inside:
                edits.replace(source.span(node), literal(known[node.id]))
        elif node.id in imported.modules:
            modules[id(node)] = imported.modules[node.id]
    for attribute in ast.walk(source.tree):
        if isinstance(attribute, ast.Attribute) and id(attribute.value) in modules:
            value = values[modules[id(attribute.value)]].get(attribute.attr)
            if value is None or id(attribute) in inside:
                continue
            if not isinstance(attribute.ctx, ast.Load):
                raise SqueezeError(source.name, attribute.lineno, "a constant is assigned")
            edits.replace(source.span(attribute), literal(value))
    return source.edited(edits)


def literal(value: int) -> str:
    """A whole number as it is written in any expression."""
    return str(value) if value >= 0 else f"({value})"
