"""Squeezes a whole program: all passes, in their order."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from simpang.squeeze.constants import inline
from simpang.squeeze.errors import SqueezeError
from simpang.squeeze.names import rename
from simpang.squeeze.shake import shake
from simpang.squeeze.strip import strip
from simpang.squeeze.text import Source


@dataclass(frozen=True, slots=True)
class Squeezed:
    """`sources`: module name -> text, of the modules that are needed; `names`: old -> new identifiers."""

    sources: dict[str, str]
    names: dict[str, str]


def squeeze(
    sources: Mapping[str, str],
    *,
    packages: Iterable[str] = (),
    kept: Iterable[str] = (),
    entries: Iterable[str] | None = None,
) -> Squeezed:
    """Squeeze a program, given as module name (with dots) -> text; `packages` names those that are packages.

    `kept` are identifiers that the world outside uses. `entries` are the modules that it imports ("node." for
    all of a package); without any, every module and every public name stays. The same sources give the same
    result. Raises SqueezeError.
    """
    own = set(packages)
    program = {name: strip(Source(name, name in own, text)) for name, text in sorted(sources.items())}
    program = inline(program)
    outside = set(kept)
    if entries is None:
        outside |= public_names(program.values())
        entries = list(program)
    program = shake(program, outside, entries)
    program, names = rename(program, outside)
    for name, source in program.items():
        if source.text.count("\n") != sources[name].count("\n"):
            raise SqueezeError(name, None, "the lines moved")
    return Squeezed({name: source.text for name, source in program.items()}, names)


def identifiers(texts: Iterable[str]) -> set[str]:
    """Every identifier of some sources, wherever it stands."""
    found: set[str] = set()
    for text in texts:
        for node in ast.walk(Source("", False, text).tree):
            for field in ("id", "attr", "arg", "name", "asname", "module"):
                value = getattr(node, field, None)
                if isinstance(value, str):
                    found.update(value.split("."))
    return found


def public_names(sources: Iterable[Source]) -> set[str]:
    """Every identifier that does not begin with `_`."""
    return {name for name in identifiers(source.text for source in sources) if not name.startswith("_")}
