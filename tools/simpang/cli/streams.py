"""What `simpang decode` can be given, and how its bytes are cut into frames."""

import json
import sys
from binascii import crc32
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe
from simpang_protocol import VERSION, cobs, envelope

from .show import problem

Json = dict[str, Any]

# A frame in a bridge's envelope, its CRC, and what COBS adds.
_ENCODED_LIMIT = envelope.LIMIT + 6
_CHUNK = 65_536
_LINE_LIMIT = 1024 * 1024
_HEX = frozenset(b"0123456789abcdefABCDEF \t\r\n:")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of one direction of a line; `place` says where they come from (t, port, dir)."""

    place: Json
    data: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A frame whose CRC held, or `instead`, which says what was there: it has `ok`.

    `encoded` is what stood on a serial line, with its end mark where there was one.
    """

    place: Json
    frame: bytes | None = None
    instead: Json = field(default_factory=dict)
    encoded: bytes | None = None


class Cutter:
    """Cuts one direction of a line at its zeros and checks COBS and CRC, keeping what is wrong visible."""

    def __init__(self) -> None:
        self._part = bytearray()
        self._skipped = 0
        self._offset = 0

    def feed(self, chunk: Chunk) -> Iterator[Piece]:
        """Yield what the bytes complete."""
        pieces = chunk.data.split(b"\0")
        for number, piece in enumerate(pieces):
            self._part += piece
            if number == len(pieces) - 1:
                break
            yield from self._end(chunk.place, 1)
        if len(self._part) > _CHUNK:
            # No frame is so long: forget the bytes, not their number.
            self._skipped += len(self._part)
            self._part.clear()

    def finish(self, place: Json) -> Iterator[Piece]:
        """Yield what remains after the last zero: a frame without its end mark, or a note of it."""
        rest = bytes(self._part)
        for piece in self._end(place, 0):
            if piece.frame is None and not piece.instead["ok"]:
                # Input may end anywhere; that is nobody's fault.
                said = {"ok": True, "kind": "rest", "size": len(rest), "hex": rest[:_ENCODED_LIMIT].hex()}
                yield Piece(piece.place, None, said)
            else:
                yield piece

    def _end(self, place: Json, mark: int) -> Iterator[Piece]:
        part, skipped = bytes(self._part), self._skipped
        self._part.clear()
        self._skipped = 0
        where = {**place, "offset": self._offset}
        self._offset += len(part) + skipped + mark
        if not part and not skipped:
            return
        if skipped or len(part) > _ENCODED_LIMIT:
            size = skipped + len(part)
            found = problem("frame.overrun", f"{size} bytes, at most {_ENCODED_LIMIT}")
            yield Piece(where, None, {**found, "size": size})
            return
        yield _check(where, part, mark)


def _check(where: Json, part: bytes, mark: int) -> Piece:
    found: Json
    try:
        data = cobs.decode(part)
    except ValueError as error:
        found = problem("frame.bad_cobs", str(error))
    else:
        frame, crc = data[:-4], data[-4:]
        expected = (crc32(frame) & 0xFFFFFFFF).to_bytes(4, "little")
        if frame and crc == expected:
            return Piece(where, frame, encoded=part + bytes(mark))
        found = problem("frame.bad_crc", f"expected {expected.hex()}, received {crc.hex()}")
    if _is_text(part):
        return Piece(where, None, {"ok": True, "kind": "console", "text": part.decode("ascii")})
    return Piece(where, None, {**found, "size": len(part), "hex": part.hex()})


def _is_text(part: bytes) -> bool:
    # Console lines are printable and end in LF; a frame that looks so would have had a CRC.
    return b"\n" in part and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in part)


def cut(chunks: Iterable[Chunk | Piece]) -> Iterator[Piece]:
    """Cut every line and direction on its own; the pieces come in the order of their last byte."""
    cutters: dict[tuple[object, object], tuple[Cutter, Json]] = {}
    for chunk in chunks:
        if isinstance(chunk, Piece):
            yield chunk
            continue
        line = (chunk.place.get("port"), chunk.place.get("dir"))
        cutter = cutters[line][0] if line in cutters else Cutter()
        cutters[line] = (cutter, chunk.place)
        yield from cutter.feed(chunk)
    for cutter, place in cutters.values():
        yield from cutter.finish(place)


def read_input(given: str) -> Iterator[Piece]:
    """Yield the pieces of what `simpang decode` was given: hexadecimal, a file, or "-" for standard input.

    Raises SimpangError cli.input.
    """
    if given == "-":
        return _read_file(sys.stdin.buffer)
    path = Path(given)
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed by the reader)
    except (OSError, ValueError) as error:
        data = _from_hex(given.encode())
        if data is None:
            raise SimpangError("cli.input", input=given) from error
        return _from_bytes(data)
    return _read_file(file)


def _read_file(file: BinaryIO) -> Iterator[Piece]:
    with file:
        first = file.readline(_LINE_LIMIT)
        if first.lstrip().startswith(b"{"):
            yield from cut(_read_capture(first, file))
            return
        data = first + file.read()
        from_hex = _from_hex(data)
        yield from _from_bytes(data) if from_hex is None else _from_bytes(from_hex)


def _from_hex(text: bytes) -> bytes | None:
    """Return the bytes of a hexadecimal text, or None where it is none."""
    if not set(text) <= _HEX or not text.strip():
        return None
    digits = bytes(byte for byte in text if byte not in b" \t\r\n:")
    return bytes.fromhex(digits.decode()) if len(digits) % 2 == 0 else None


def _from_bytes(data: bytes) -> Iterator[Piece]:
    """Cut the bytes of a line; without any frame of a line in them, they are one bare frame (ESP-NOW)."""
    pieces = list(cut([Chunk({}, data)]))
    bare = bool(data) and data[0] >> 5 == VERSION and 9 <= len(data) <= cobs.FRAME_LIMIT
    if bare and not any(piece.frame for piece in pieces):
        pieces = [Piece({"offset": 0}, data)]
    yield from pieces


def _read_capture(first: bytes, file: BinaryIO) -> Iterator[Chunk | Piece]:
    number = 0
    line = first
    while line:
        number += 1
        if line.strip():
            yield _capture_line(number, line)
        line = file.readline(_LINE_LIMIT)


def _capture_line(number: int, line: bytes) -> Chunk | Piece:
    try:
        entry = json.loads(line)
        place = {"t": entry["t"], "port": str(entry["port"]), "dir": str(entry["dir"])}
        return Chunk(place, bytes.fromhex(entry["hex"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Piece({"line": number}, None, problem("capture.damaged", describe(error)))
