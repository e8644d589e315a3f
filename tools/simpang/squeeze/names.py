"""Gives identifiers short names, the same ones over and over, best those that lie in the interpreter's ROM.

A name keeps one new name through the whole program wherever it is an attribute, a global, a function or a
class. Two names may share a new one unless they could meet: in one module, in one class with its bases and
heirs, or in one function where the other is a local. Attributes that are set on anything but `self` meet
everything. Arguments are renamed function by function, unless any call in the program names them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

from simpang.squeeze import words
from simpang.squeeze.constants import origin_of
from simpang.squeeze.errors import SqueezeError
from simpang.squeeze.scopes import Scope, Scopes, walk_here
from simpang.squeeze.text import Edits, Source, Span

_FORBIDDEN = {"eval", "exec", "globals", "locals", "vars", "dir"}
_BY_TEXT = {"getattr", "hasattr", "setattr", "delattr"}


def rename(sources: Mapping[str, Source], kept: Iterable[str]) -> tuple[dict[str, Source], dict[str, str]]:
    """Return the program with short names, and old -> new of all that are not arguments."""
    program = _Program(sources, set(kept))
    new = program.colours()
    return {name: program.renamed(name, new) for name in sources}, new


class _Program:
    def __init__(self, sources: Mapping[str, Source], kept: set[str]) -> None:
        self._sources = sources
        self._scopes = {name: Scopes(source.tree) for name, source in sources.items()}
        self._keywords: set[str] = set(kept)
        self._kept = kept | words.RESERVED
        self._exceptions = _exceptions(sources)
        # Of each function or lambda: argument -> its new name.
        self._chosen: dict[int, dict[str, str]] = {}
        self._texts: set[str] = set()
        self._fields: dict[str, list[tuple[ast.Constant, list[str]]]] = {name: [] for name in sources}
        self._inside_text: dict[str, set[int]] = {}
        for name, source in sources.items():
            self._read(name, source)
        for name in sources:
            self._kept.update(name.split("."))
        # A traceback ends with the name of an exception.
        self._kept |= self._texts | self._exceptions
        # Whoever makes a named tuple may name its fields.
        self._kept |= self._keywords & {
            f for found in self._fields.values() for _, fields in found for f in fields
        }
        self._defined: set[str] = set()
        # Sets of names that must stay different from each other.
        self._meetings: list[set[str]] = []
        # New names that a name must not get.
        self._barred: dict[str, set[str]] = {}
        self._families()
        for name in sources:
            self._module(name)

    def _read(self, name: str, source: Source) -> None:
        self._inside_text[name] = set()
        field_texts: set[int] = set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                self._keywords.update(k.arg for k in node.keywords if k.arg)
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                if called in _FORBIDDEN:
                    raise SqueezeError(name, node.lineno, f"{called}() cannot be squeezed")
                if called == "namedtuple":
                    field_texts |= self._named_tuple(name, node)
            elif isinstance(node, ast.Import):
                self._kept.update(alias.name for alias in node.names if not alias.asname)
            elif isinstance(node, ast.ImportFrom):
                if origin_of(node, source) not in self._sources:
                    # Of the interpreter.
                    self._kept.update(alias.name for alias in node.names)
            elif isinstance(node, ast.Nonlocal):
                raise SqueezeError(name, node.lineno, "nonlocal cannot be squeezed")
            elif isinstance(node, ast.JoinedStr):
                self._inside_text[name].update(id(part) for part in ast.walk(node) if part is not node)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in field_texts:
                self._texts.update(part for part in node.value.split(".") if part.isidentifier())

    def _named_tuple(self, name: str, call: ast.Call) -> set[int]:
        """The fields of a named tuple are texts that become attributes."""
        found: set[int] = set()
        fields = call.args[1] if len(call.args) > 1 else None
        if not isinstance(fields, ast.Tuple):
            raise SqueezeError(name, call.lineno, "write the fields of a namedtuple as a tuple")
        together = [str(item.value) for item in fields.elts if isinstance(item, ast.Constant)]
        for item in fields.elts:
            if not (isinstance(item, ast.Constant) and isinstance(item.value, str)):
                raise SqueezeError(name, call.lineno, "write the fields of a namedtuple as texts")
            self._fields[name].append((item, together))
            found.add(id(item))
        return found

    # ---- who meets whom

    def _families(self) -> None:
        """Classes that share instances: bases and heirs, by name."""
        leader: dict[str, str] = {}
        members: dict[str, set[str]] = {}
        outside: dict[str, bool] = {}

        def find(name: str) -> str:
            while leader.setdefault(name, name) != name:
                name = leader[name]
            return name

        everything: set[str] = set()
        wild: set[str] = set()
        names = {
            n.name for s in self._sources.values() for n in ast.walk(s.tree) if isinstance(n, ast.ClassDef)
        }
        for source in self._sources.values():
            for node in ast.walk(source.tree):
                if isinstance(node, ast.ClassDef):
                    for base in node.bases:
                        called = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
                        if called in names:
                            leader[find(called)] = find(node.name)
                        else:
                            outside[node.name] = True
                    members.setdefault(node.name, set()).update(_class_names(node))
                    self._defined |= _class_definitions(node)
                elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                    self._defined.add(node.attr)
                    if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                        wild.add(node.attr)
        for name, fields in self._fields.items():
            for item, together in fields:
                self._defined.add(str(item.value))
                members.setdefault(f"{name}:{item.lineno}", set()).update(together)
                outside[f"{name}:{item.lineno}"] = True
        families: dict[str, set[str]] = {}
        foreign: dict[str, bool] = {}
        for name, found in members.items():
            families.setdefault(find(name), set()).update(found)
            foreign[find(name)] = foreign.get(find(name), False) or outside.get(name, False)
            everything |= found
        for name, found in families.items():
            self._meetings.append(found | wild)
            if foreign[name]:
                for member in found:
                    self._bar(member, words.RESERVED)
        self._meetings.append(wild)

    def _bar(self, name: str, barred: Iterable[str]) -> None:
        self._barred.setdefault(name, set()).update(barred)

    def _module(self, name: str) -> None:
        source, scopes = self._sources[name], self._scopes[name]
        self._defined |= scopes.module_names
        # What is set on a module from outside, and the modules of a package, are attributes of it too.
        below = {other.rpartition(".")[2] for other in self._sources if other.rpartition(".")[0] == name}
        free = {use.node.id for use in scopes.uses if use.owner is None}
        stored = {
            n.attr
            for s in self._sources.values()
            for n in ast.walk(s.tree)
            if isinstance(n, ast.Attribute)
            and not isinstance(n.ctx, ast.Load)
            and isinstance(n.value, ast.Name)
            and n.value.id != "self"
        }
        self._meetings.append(scopes.module_names | free | below | (stored if source.package else set()))
        for use in scopes.uses:
            if use.owner is None or use.owner.is_class:
                scope = use.scope
                while scope is not None:
                    if not scope.is_class:
                        self._bar(use.node.id, scope.bound)
                    scope = scope.parent
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and node.name and node.name in scopes.module_names:
                raise SqueezeError(name, node.lineno, "an exception is kept in a global")

    # ---- new names

    def colours(self) -> dict[str, str]:
        """Old name -> new name."""
        names = {name for name in self._defined if name not in self._kept and not name.startswith("__")}
        neighbours: dict[str, set[str]] = {name: set() for name in names}
        for meeting in self._meetings:
            for name in meeting & names:
                neighbours[name] |= meeting
        new: dict[str, str] = {}
        pool = [word for word in words.POOL if word not in self._texts]
        for name in sorted(names, key=lambda n: (-len(neighbours[n]), n)):
            taken = {new.get(other, other) for other in neighbours[name] if other != name}
            taken |= self._barred.get(name, set())
            new[name] = next(word for word in _words(pool) if word not in taken)
        return new

    def renamed(self, name: str, new: Mapping[str, str]) -> Source:
        """One module with new names."""
        source = self._sources[name]
        edits = Edits()
        self._rename_arguments(name, new)
        for span, text in self._occurrences(name, new):
            edits.replace(span, text)
        return source.edited(edits)

    def _rename_arguments(self, name: str, new: Mapping[str, str]) -> None:
        """Choose a new name for each argument of each function, and note it in the scope."""
        scopes = self._scopes[name]
        chosen = self._chosen
        for scope in scopes.functions():
            taken = {new.get(m, m) for m in scope.mentioned} | scope.mentioned
            outer = scope.parent
            while outer is not None:
                taken |= set(chosen.get(id(outer), {}).values())
                outer = outer.parent
            mine: dict[str, str] = {}
            for argument in scope.arguments:
                if argument.arg in self._keywords:
                    continue
                word = next(w for w in _words(words.POOL) if w not in taken)
                taken.add(word)
                mine[argument.arg] = word
            chosen[id(scope)] = mine

    def _occurrences(self, name: str, new: Mapping[str, str]) -> Iterator[tuple[Span, str]]:
        source, scopes = self._sources[name], self._scopes[name]
        inside = self._inside_text[name]
        at_top = {id(node) for node in walk_here(source.tree.body)}
        names: dict[int, str] = {}
        for use in scopes.uses:
            target = self._target(use.node.id, use.owner, new)
            if target is not None:
                names[id(use.node)] = target
        for scope in scopes.functions():
            for argument in scope.arguments:
                target = self._chosen[id(scope)].get(argument.arg)
                if target is not None:
                    start, _ = source.span(argument)
                    yield (start, start + len(argument.arg)), target
        for node in ast.walk(source.tree):
            if id(node) in inside:
                continue
            if isinstance(node, ast.Name) and id(node) in names:
                yield source.span(node), names[id(node)]
            elif isinstance(node, ast.Attribute) and node.attr in new:
                _, end = source.span(node)
                yield (end - len(node.attr), end), new[node.attr]
            elif isinstance(node, ast.JoinedStr):
                yield source.span(node), self._joined(node, names, new)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                target = self._definition(scopes, node, new)
                if target is not None:
                    start = source.place(node.lineno, node.col_offset)
                    found = re.compile(r"(?:def|class)\s+").match(source.text, start)
                    if found is None:
                        raise SqueezeError(name, node.lineno, "a definition that is not understood")
                    yield (found.end(), found.end() + len(node.name)), target
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                yield from self._import(source, node, new, id(node) in at_top)
            elif isinstance(node, ast.Global):
                start, end = source.span(node)
                yield (start, end), "global " + ", ".join(new.get(n, n) for n in node.names)
        for item, _ in self._fields[name]:
            if item.value in new:
                yield source.span(item), f'"{new[str(item.value)]}"'

    def _target(self, name: str, owner: Scope | None, new: Mapping[str, str]) -> str | None:
        if owner is None or owner.is_class:
            return new.get(name)
        return self._chosen.get(id(owner), {}).get(name)

    def _definition(
        self, scopes: Scopes, node: ast.FunctionDef | ast.ClassDef, new: Mapping[str, str]
    ) -> str | None:
        for scope in scopes.all:
            if scope.node is node and scope.parent is not None and not scope.parent.is_class:
                return None  # local to a function
        return new.get(node.name)

    def _joined(self, node: ast.JoinedStr, names: Mapping[int, str], new: Mapping[str, str]) -> str:
        """A format text, written anew."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and id(part) in names:
                part.id = names[id(part)]
            elif isinstance(part, ast.Attribute):
                part.attr = new.get(part.attr, part.attr)
        return ast.unparse(node)

    def _import(
        self, source: Source, node: ast.Import | ast.ImportFrom, new: Mapping[str, str], at_top: bool
    ) -> Iterator[tuple[Span, str]]:
        for alias in node.names:
            text = alias.name
            if isinstance(node, ast.ImportFrom):
                text = new.get(alias.name, alias.name)
            bound = alias.asname or alias.name
            if at_top:
                bound = new.get(bound, bound)
            if bound != text and (alias.asname or isinstance(node, ast.ImportFrom)):
                text += f" as {bound}"
            if text != ast.unparse(alias):
                yield source.span(alias), text


def _words(pool: Iterable[str]) -> Iterator[str]:
    yield from pool
    for first in "abcdefghijklmnopqrstuvwxyz":
        for second in "0123456789abcdefghijklmnopqrstuvwxyz":
            if first + second not in words.RESERVED and first + second not in words.KEYWORDS:
                yield first + second


def _exceptions(sources: Mapping[str, Source]) -> set[str]:
    """The names of all exceptions of the program."""
    classes = [n for s in sources.values() for n in ast.walk(s.tree) if isinstance(n, ast.ClassDef)]
    found = set(words.EXCEPTIONS)
    before = 0
    while before != (before := len(found)):
        for node in classes:
            if any(isinstance(base, ast.Name) and base.id in found for base in node.bases):
                found.add(node.name)
    return found


def _class_names(node: ast.ClassDef) -> set[str]:
    """Every name that instances and body of a class use: none of these may fall together."""
    found = _class_definitions(node)
    for statement in node.body:
        inner: Iterable[ast.AST] = ast.walk(statement)
        if isinstance(statement, ast.FunctionDef):
            parts = (*statement.args.defaults, *statement.args.kw_defaults, *statement.decorator_list)
            found |= {n.id for part in parts if part for n in ast.walk(part) if isinstance(n, ast.Name)}
        else:
            found |= {n.id for n in inner if isinstance(n, ast.Name)}
    return found


def _class_definitions(node: ast.ClassDef) -> set[str]:
    found: set[str] = set()
    for statement in node.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            found.add(statement.name)
        found |= {
            n.id
            for n in ast.walk(statement)
            if not isinstance(statement, ast.FunctionDef)
            and isinstance(n, ast.Name)
            and not isinstance(n.ctx, ast.Load)
        }
        for inner in ast.walk(statement):
            if (
                isinstance(inner, ast.Attribute)
                and isinstance(inner.value, ast.Name)
                and inner.value.id == "self"
            ):
                found.add(inner.attr)
    return found
