"""Which device kinds a node knows. A driver's module is imported when it is first asked for, so that a node
holds in memory only the drivers of the sensors that it carries."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_CLASSES = {"bme280": "Bme280", "pms5003": "Pms5003"}


class _Kinds:
    """Kind name -> driver class; iterates over the names in alphabetical order."""

    def __contains__(self, kind: object) -> bool:
        return kind in _CLASSES

    def __iter__(self) -> "Iterator[str]":
        return iter(sorted(_CLASSES))

    def __getitem__(self, kind: str) -> "Any":
        """The driver class. Raises KeyError for a kind that this firmware does not know."""
        class_name = _CLASSES[kind]
        return getattr(getattr(__import__("sensors." + kind), kind), class_name)


KINDS = _Kinds()
