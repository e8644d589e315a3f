"""Which names of a module are local to a function, and which reach further."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(eq=False, slots=True)
class Scope:
    """A function, lambda or comprehension (`bound`: its own names) or a class body (`is_class`)."""

    node: ast.AST | None
    parent: Scope | None
    is_class: bool
    bound: set[str]
    arguments: list[ast.arg] = field(default_factory=list)
    # Of a function and all scopes inside it: every name that occurs as an ast.Name or is bound.
    mentioned: set[str] = field(default_factory=set)

    def owner(self, name: str) -> Scope | None:
        """The scope around this one, itself included, that binds a name; None for the module."""
        scope: Scope | None = self
        innermost = True
        while scope is not None:
            if name in scope.bound and (innermost or not scope.is_class):
                return scope
            scope = scope.parent
            innermost = False
        return None


@dataclass(frozen=True, slots=True)
class Use:
    """One ast.Name: `owner` binds it, None where the module or the builtins do."""

    node: ast.Name
    owner: Scope | None
    scope: Scope | None


class Scopes:
    """All scopes of a module, and its names resolved."""

    def __init__(self, tree: ast.Module) -> None:
        self.uses: list[Use] = []
        self.all: list[Scope] = []
        self.module_names = bound_in(tree.body)
        for statement in tree.body:
            self._visit(statement, None)
        for scope in self.all:
            outer: Scope | None = scope.parent
            while outer is not None:
                outer.mentioned |= scope.mentioned | scope.bound
                outer = outer.parent
            scope.mentioned |= scope.bound

    def functions(self) -> Iterator[Scope]:
        """Functions and lambdas, outer ones first."""
        for scope in self.all:
            if isinstance(scope.node, (ast.FunctionDef, ast.Lambda)):
                yield scope

    def _enter(self, scope: Scope) -> Scope:
        self.all.append(scope)
        return scope

    def _visit(self, node: ast.AST, scope: Scope | None) -> None:
        if isinstance(node, ast.Name):
            owner = scope.owner(node.id) if scope else None
            self.uses.append(Use(node, owner, scope))
            if scope is not None:
                scope.mentioned.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            for part in (*node.decorator_list, *node.bases, *node.keywords):
                self._visit(part, scope)
            inner = self._enter(Scope(node, scope, True, bound_in(node.body)))
            for statement in node.body:
                self._visit(statement, inner)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            self._comprehension(node, scope)
        else:
            for child in ast.iter_child_nodes(node):
                self._visit(child, scope)

    def _function(self, node: Function, scope: Scope | None) -> None:
        arguments = node.args
        for part in (*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)):
            self._visit(part, scope)
        body: list[ast.stmt] = []
        if isinstance(node, ast.FunctionDef):
            for part in node.decorator_list:
                self._visit(part, scope)
            body = node.body
        plain = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        starred = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        bound = {a.arg for a in (*plain, *starred)} | bound_in(body)
        for outer in walk_here(body):
            if isinstance(outer, ast.Global):
                bound -= set(outer.names)
        inner = self._enter(Scope(node, scope, False, bound, plain))
        for statement in body if isinstance(node, ast.FunctionDef) else (node.body,):
            self._visit(statement, inner)

    def _comprehension(self, node: Comprehension, scope: Scope | None) -> None:
        self._visit(node.generators[0].iter, scope)
        bound: set[str] = set()
        for generator in node.generators:
            bound |= {n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name)}
        inner = self._enter(Scope(node, scope, False, bound))
        for number, generator in enumerate(node.generators):
            self._visit(generator.target, inner)
            if number:
                self._visit(generator.iter, inner)
            for condition in generator.ifs:
                self._visit(condition, inner)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for part in parts:
            self._visit(part, inner)


def walk_here(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes of a block, but not those inside functions, classes and comprehensions."""
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda, *_COMPREHENSIONS)):
            todo.extend(ast.iter_child_nodes(node))


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def bound_in(body: list[ast.stmt]) -> set[str]:
    """The names that a block binds."""
    bound: set[str] = set()
    for node in walk_here(body):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return bound
