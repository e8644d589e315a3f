"""Makes firmware small before it is compiled: the same program in less memory of the node.

A node's heap holds every function, class and identifier of its firmware. `squeeze` takes the sources of a
whole program and gives them back with what a node has no use for taken out: types, assertions, constants of
whole numbers (written where they are used), definitions that nothing names, and nearly all identifiers (words
that the interpreter has in its ROM take their place). Every statement stays in its line, so that a traceback
tells file and line as they are in the sources.

What a program must not do for this to be right is checked where it can be, and said in docs/node-sizes.md.
"""

from simpang.squeeze.errors import SqueezeError
from simpang.squeeze.program import Squeezed, identifiers, squeeze

__all__ = ["SqueezeError", "Squeezed", "identifiers", "squeeze"]
