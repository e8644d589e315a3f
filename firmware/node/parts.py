"""Parts of the firmware that are not needed all the time go out of memory again."""

import sys

_IS_NODE = sys.implementation.name == "micropython"
# Everything that reading a configuration brings into memory, but for the drivers.
CONFIG_PARTS = (
    "node.config",
    "node.configread",
    "node.configlink",
    "node.configbuses",
    "node.configsensors",
    "node.configrecord",
    "sensors.registry",
)


def drop(*names: str) -> None:
    """Forget imported modules, such as "node.config"; the next import loads them anew. What still refers to
    their functions or classes keeps those. A computer has memory enough: there nothing happens, and a class
    stays the same class for all who know it."""
    for name in names if _IS_NODE else ():
        if sys.modules.pop(name, None) is not None:
            package, _, part = name.rpartition(".")
            delattr(sys.modules[package], part)


def drop_since(before: "list[str]") -> None:
    """Forget the parts that were imported since `before`, an earlier `list(sys.modules)`."""
    drop(*[name for name in sys.modules if name not in before and name.startswith(("node.", "sensors."))])
