"""How `simpang decode --explain` goes over bytes: parts with their place, their name and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_HEX_IN_A_LINE = 8

Say = str | Callable[[int], str]


class Short(Exception):
    """The bytes end inside a field."""


@dataclass(frozen=True, slots=True)
class Bits:
    """Some bits of a body: where they begin, counted from the first bit of the part, and what they say."""

    at: int
    bits: str
    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that belong together; `at` is their offset in the section."""

    at: int
    data: bytes
    name: str
    meaning: str
    bits: tuple[Bits, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the part for JSON."""
        said: dict[str, Any] = {"offset": self.at, "hex": self.data.hex()}
        said |= {"field": self.name, "meaning": self.meaning}
        if self.bits:
            said["bits"] = [
                {"offset": bit.at, "bits": bit.bits, "field": bit.name, "meaning": bit.meaning}
                for bit in self.bits
            ]
        return said

    def lines(self) -> Iterator[str]:
        """Yield the part as people read it."""
        pieces = [self.data[at : at + _HEX_IN_A_LINE] for at in range(0, len(self.data), _HEX_IN_A_LINE)]
        first = pieces[0].hex(" ") if pieces else ""
        yield f"{self.at:6}  {first:<23}  {self.name:<22}  {self.meaning}".rstrip()
        for number, piece in enumerate(pieces[1:], 1):
            yield f"{self.at + number * _HEX_IN_A_LINE:6}  {piece.hex(' ')}"
        for bit in self.bits:
            place = f"{self.at + bit.at // 8}.{bit.at % 8}"
            yield f"{place:>8}  {bit.bits:<21}  {bit.name:<22}  {bit.meaning}"


@dataclass(slots=True)
class Section:
    """Bytes that are counted from one beginning."""

    title: str
    parts: list[Part] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the section for JSON."""
        return {"section": self.title, "parts": [part.to_dict() for part in self.parts]}

    def lines(self) -> Iterator[str]:
        """Yield the section as people read it."""
        yield self.title
        for part in self.parts:
            yield from part.lines()


class Walker:
    """Takes fields from `data` one after the other and notes them in a section.

    `base` is added to the offsets that are shown. Every method that takes raises Short where the bytes end.
    """

    def __init__(self, title: str, data: bytes, base: int = 0) -> None:
        self.section = Section(title)
        self.data = data
        self.at = 0
        self._base = base

    @property
    def left(self) -> int:
        """How many bytes were not taken yet."""
        return len(self.data) - self.at

    def note(self, size: int, name: str, meaning: str, bits: tuple[Bits, ...] = ()) -> bytes:
        """Take `size` bytes as one part."""
        if size > self.left:
            raise Short(name)
        data = self.data[self.at : self.at + size]
        self.section.parts.append(Part(self._base + self.at, data, name, meaning, bits))
        self.at += size
        return data

    def number(self, size: int, name: str, say: Say = str, *, signed: bool = False) -> int:
        """Take a little-endian number; `say` gives its meaning."""
        if size > self.left:
            raise Short(name)
        value = int.from_bytes(self.data[self.at : self.at + size], "little", signed=signed)
        self.note(size, name, say if isinstance(say, str) else say(value))
        return value

    def inside(self, size: int) -> Walker:
        """Return a walker over the next `size` bytes alone; `take` brings back what it noted."""
        return Walker("", self.data[self.at : self.at + size], self._base + self.at)

    def take(self, inner: Walker) -> None:
        """Take over the parts of a walker that `inside` gave, and go on behind its bytes."""
        self.section.parts += inner.section.parts
        self.at += len(inner.data)

    def rest(self, name: str, meaning: str) -> None:
        """Take all that is left, if there is any."""
        if self.left:
            self.note(self.left, name, meaning)
