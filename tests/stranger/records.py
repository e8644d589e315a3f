"""Records, items and texts: SPEC.md sections 5.2 to 5.4."""

from dataclasses import dataclass

from tests.stranger import codec
from tests.stranger.refused import Refused

TEXT, LOST_RANGE = 1, 5  # tags, section 5.4
DROP, COMMAND = 2, 10  # codes of events, section 8.1

Item = tuple[int, bytes]


@dataclass
class Record:
    """Section 5.3: the fixed part, and the bytes behind it."""

    schema: int
    seq: int
    epoch: int | None
    basis: int
    count: int
    t0: int
    period_s: int
    tail: bytes

    def rows_and_items(self) -> tuple[list[list[int | None]] | None, list[Item] | None]:
        """Both None for a schema that is not known; refused where it cannot be decoded."""
        if self.schema not in codec.schemas():
            return None, None
        rows, behind = codec.decode(self.schema, self.count, self.tail)
        return rows, read_items(behind)


def read_record(data: bytes) -> Record:
    """Section 5.3: what makes a fixed part invalid."""
    fixed = 12 if len(data) > 3 and data[3] & 0x20 else 9
    if len(data) < fixed:
        raise Refused("head")
    if len(data) > 200:
        raise Refused("size")
    count = (data[3] & 0x1F) + 1
    period = data[fixed - 1]
    if period == 128 or (period == 0 and count > 1):
        raise Refused("period")
    schema = codec.schemas().get(data[0])
    if schema is not None and schema.fixed and count > 1:
        raise Refused("count")
    return Record(
        schema=data[0],
        seq=int.from_bytes(data[1:3], "little"),
        epoch=int.from_bytes(data[4:7], "little") if fixed == 12 else None,
        basis=data[3] >> 6,
        count=count,
        t0=int.from_bytes(data[fixed - 5 : fixed - 1], "little"),
        period_s=period if period < 128 else (period - 128) * 60,
        tail=data[fixed:],
    )


def write_record(record: Record, rows: codec.Rows, items: list[Item]) -> bytes:
    """As a sender writes it: seconds where seconds do."""
    period = record.period_s if record.period_s < 128 else 128 + record.period_s // 60
    epoch = b"" if record.epoch is None else record.epoch.to_bytes(3, "little")
    flags = record.basis << 6 | (record.epoch is not None) << 5 | (record.count - 1)
    head = bytes([record.schema]) + record.seq.to_bytes(2, "little") + bytes([flags]) + epoch
    head += record.t0.to_bytes(4, "little") + bytes([period])
    return head + codec.encode(record.schema, rows) + b"".join(bytes([t, len(v)]) + v for t, v in items)


def with_epoch(data: bytes, epoch: int) -> bytes:
    """Section 5.3: a record that travels in a frame of a later epoch."""
    return data[:3] + bytes([data[3] | 0x20]) + epoch.to_bytes(3, "little") + data[4:]


def without_epoch(data: bytes) -> bytes:
    """Section 5.3: as a gateway stores it."""
    return data[:3] + bytes([data[3] & ~0x20]) + data[7:] if data[3] & 0x20 else data


def read_items(data: bytes) -> list[Item]:
    """Section 5.4."""
    items = []
    at = 0
    while at < len(data):
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise Refused("items")
        items.append((data[at], data[at + 2 : at + 2 + data[at + 1]]))
        at += 2 + data[at + 1]
    return items


def lost_range(value: bytes) -> tuple[int, int, int, int] | None:
    """Section 5.4, tag 5: epoch, first, last, cause; None where it holds no such thing."""
    if len(value) != 8:
        return None
    epoch, first = int.from_bytes(value[:3], "little"), int.from_bytes(value[3:5], "little")
    last = int.from_bytes(value[5:7], "little")
    return (epoch, first, last, value[7]) if first <= last else None


def text_item(text: str) -> bytes:
    """Section 5.4, tag 1: at most 64 bytes, cut at a character."""
    return text.encode()[:64].decode(errors="ignore").encode()


def split_records(plain: bytes) -> tuple[list[bytes], bool]:
    """Section 5.2, with MULTI: the records, and whether the last one was cut."""
    found = []
    at = 0
    while at < len(plain):
        end = at + 1 + plain[at]
        if end > len(plain):
            return found, True
        found.append(plain[at + 1 : end])
        at = end
    return found, False


def command_result(data: bytes) -> tuple[int, int, str] | None:
    """Section 10.1: command id, outcome and text of an event with code 10."""
    record = read_record(data)
    rows, items = record.rows_and_items()
    if rows is None or codec.schemas()[record.schema].name != "event" or rows[0][0] != COMMAND:
        return None
    text = next((value for tag, value in items or [] if tag == TEXT), b"")
    return rows[0][2], rows[0][3], text.decode()
