"""Takes out definitions that nothing in the program names: functions, classes, methods, values, imports.

The judgement is by name alone, so it errs to the safe side: a method stays where any object anywhere has its
name mentioned, in code or in a text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

from simpang.squeeze.constants import origin_of
from simpang.squeeze.text import Edits, Source

# What these make has no effect but its value.
_HARMLESS = {
    "bytes",
    "bytearray",
    "tuple",
    "list",
    "dict",
    "set",
    "frozenset",
    "range",
    "namedtuple",
    "len",
    "object",
}


def shake(sources: Mapping[str, Source], kept: Iterable[str], entries: Iterable[str]) -> dict[str, Source]:
    """Return the program without what is not needed.

    `kept` are names that something outside the program uses; `entries` modules that are always wanted (ending
    in ".": all below), the others are where a module that is wanted imports them.
    """
    classes = {
        node.name
        for source in sources.values()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    }
    used = _used_names(sources, set(kept), classes)
    sources = {name: _without(source, used, classes) for name, source in sources.items()}
    sources = _without_imports(sources, set(kept))
    return {name: sources[name] for name in reachable(sources, entries)}


def defined(statement: ast.stmt, classes: set[str]) -> str | None:
    """The one name that a statement defines and does nothing else; None for another statement."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return None if statement.name.startswith("__") else statement.name
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if isinstance(target, ast.Name) and _harmless(statement.value, classes):
            return target.id
    return None


def _harmless(value: ast.expr, classes: set[str]) -> bool:
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            if called not in _HARMLESS and called not in classes:
                return False
    return True


def mentioned(node: ast.AST, skip: set[int] | None = None) -> Iterator[str]:
    """Every identifier, and every text that looks like one, below a node; not below those in `skip`."""
    todo = [node]
    while todo:
        at = todo.pop()
        if skip and id(at) in skip:
            continue
        if isinstance(at, ast.Name):
            yield at.id
        elif isinstance(at, ast.Attribute):
            yield at.attr
        elif isinstance(at, ast.alias):
            yield from at.name.split(".")
        elif isinstance(at, ast.Global):
            yield from at.names
        elif isinstance(at, ast.Constant) and isinstance(at.value, str):
            yield from (part for part in at.value.split(".") if part.isidentifier())
        elif isinstance(at, ast.Expr) and isinstance(at.value, ast.Constant):
            # A docstring is nobody's mention of anything.
            continue
        todo.extend(ast.iter_child_nodes(at))


def _definitions(tree: ast.Module, classes: set[str]) -> Iterator[tuple[str, ast.stmt]]:
    """Everything that may be taken out: at the top of the module, and in its classes."""
    for statement in tree.body:
        name = defined(statement, classes)
        if name is not None:
            yield name, statement
        for inner in statement.body if isinstance(statement, ast.ClassDef) else ():
            name = defined(inner, classes)
            if name is not None:
                yield name, inner


def _used_names(sources: Mapping[str, Source], kept: set[str], classes: set[str]) -> set[str]:
    waiting: dict[str, list[ast.stmt]] = {}
    pending: set[int] = set()
    for source in sources.values():
        for name, statement in _definitions(source.tree, classes):
            waiting.setdefault(name, []).append(statement)
            pending.add(id(statement))
    used: set[str] = set()
    todo = list(kept)
    for source in sources.values():
        # Imports mention what they import; what is imported and not named any more is not needed.
        imports = {id(s) for s in source.tree.body if isinstance(s, (ast.Import, ast.ImportFrom))}
        todo.extend(mentioned(source.tree, pending | imports))
        todo.extend(_renamed_imports(source))
    while todo:
        name = todo.pop()
        if name in used:
            continue
        used.add(name)
        for statement in waiting.pop(name, ()):
            pending.discard(id(statement))
            todo.extend(mentioned(statement, pending))
    return used


def _renamed_imports(source: Source) -> Iterator[str]:
    """`from x import a as b`: whether b is used is not followed, a counts as used."""
    for statement in source.tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                if alias.asname is not None:
                    yield from alias.name.split(".")


def _without(source: Source, used: set[str], classes: set[str]) -> Source:
    edits = Edits()
    gone = {statement for name, statement in _definitions(source.tree, classes) if name not in used}
    gone = {
        s for s in gone if not any(s is not c and isinstance(c, ast.ClassDef) and s in c.body for c in gone)
    }
    edits.remove_statements(source, gone)
    return source.edited(edits)


def _without_imports(sources: Mapping[str, Source], kept: set[str]) -> dict[str, Source]:
    """Take out imports at the top of modules that neither the module nor an importer of it names."""
    out = dict(sources)
    before = None
    while before != (now := {name: source.text for name, source in out.items()}):
        before = now
        asked: dict[str, set[str]] = {name: set() for name in out}
        for source in out.values():
            for node in ast.walk(source.tree):
                if isinstance(node, ast.ImportFrom):
                    asked.setdefault(origin_of(node, source), set()).update(a.name for a in node.names)
        for name, source in out.items():
            out[name] = _drop_imports(source, asked[name] | kept)
    return out


def _drop_imports(source: Source, wanted: set[str]) -> Source:
    imports = [s for s in source.tree.body if isinstance(s, (ast.Import, ast.ImportFrom))]
    named = set(mentioned(source.tree, {id(statement) for statement in imports})) | wanted
    edits = Edits()
    removed: set[ast.stmt] = set()
    for statement in imports:
        stays = [a for a in statement.names if (a.asname or a.name.split(".")[0]) in named]
        if not stays:
            removed.add(statement)
        elif len(stays) < len(statement.names):
            start, _ = source.span(statement.names[0])
            _, end = source.span(statement.names[-1])
            edits.replace((start, end), ", ".join(ast.unparse(alias) for alias in stays))
    edits.remove_statements(source, removed)
    return source.edited(edits)


def reachable(sources: Mapping[str, Source], entries: Iterable[str]) -> list[str]:
    """The modules that the entries need, by the import statements anywhere in them."""
    entries = list(entries)
    todo = [
        name
        for name in sources
        if any(name == e or (e.endswith(".") and name.startswith(e)) for e in entries)
    ]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in found or name not in sources:
            continue
        found.add(name)
        if "." in name:
            todo.append(name.rpartition(".")[0])
        for node in ast.walk(sources[name].tree):
            if isinstance(node, ast.Import):
                todo.extend(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = origin_of(node, sources[name])
                todo.append(origin)
                todo.extend(f"{origin}.{alias.name}" for alias in node.names)
    return [name for name in sources if name in found]
