"""Schemas and column codec: SPEC.md sections 6 and 7. The table of schemas is read from SPEC.md itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.stranger.refused import Refused

SPEC = Path(__file__).parents[2] / "protocol" / "SPEC.md"
FIXED = {"health", "event"}  # section 6: these never grow
TOP = 1 << 30  # section 7.1: a code of 2^30 or more is invalid

Rows = Sequence[Sequence[int | None]]


@dataclass(frozen=True)
class Column:
    field: str
    signed: bool
    nominal: int
    k0: int
    predictor: int
    k: int


@dataclass(frozen=True)
class Schema:
    number: int
    name: str
    columns: tuple[Column, ...]

    @property
    def fixed(self) -> bool:
        return self.name in FIXED

    @property
    def bound(self) -> int:
        return TOP - 1 if self.fixed else 1 << 26


@cache
def schemas() -> dict[int, Schema]:
    """The table of section 6, between its marker lines."""
    text = SPEC.read_text(encoding="utf-8")
    table = text.split("<!-- schemas: begin -->")[1].split("<!-- schemas: end -->")[0]
    found: dict[int, tuple[str, list[Column]]] = {}
    for line in table.strip().splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        schema, column, name, _unit, _resolution, sign, nominal, k0, predictor, k = cells
        number, title = schema.split()
        columns = found.setdefault(int(number), (title, []))[1]
        assert int(column) == len(columns) and sign in ("signed", "unsigned")
        columns.append(
            Column(
                name.strip("`"), sign == "signed", int(nominal), int(k0), int(predictor.split()[0]), int(k)
            )
        )
    return {number: Schema(number, title, tuple(columns)) for number, (title, columns) in found.items()}


def zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(code: int) -> int:
    return code >> 1 if code & 1 == 0 else -(code >> 1) - 1


class Reader:
    """Bits from the most significant on; codes of section 7.1."""

    def __init__(self, body: bytes):
        self.body = body
        self.at = 0

    @property
    def left(self) -> int:
        return 8 * len(self.body) - self.at

    def only_zeros_left(self) -> bool:
        return int.from_bytes(self.body, "big") & ((1 << self.left) - 1) == 0

    def bit(self) -> int:
        if self.left == 0:
            raise Refused("truncated")
        self.at += 1
        return self.body[(self.at - 1) >> 3] >> (7 - (self.at - 1 & 7)) & 1

    def bits(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.bit()
        return value

    def exp_golomb(self, k: int) -> int:
        zeros = 0
        while self.bit() == 0:
            zeros += 1
            if zeros > 30:
                raise Refused("code")
        value = (1 << (zeros + k)) + self.bits(zeros + k) - (1 << k)
        if value >= TOP:
            raise Refused("code")
        return value

    def rice(self, k: int) -> int:
        quotient = 0
        while quotient < 12 and self.bit():
            quotient += 1
        if quotient == 12:
            quotient += self.exp_golomb(0)
        if quotient > (TOP - 1) >> k:
            raise Refused("code")
        return quotient << k | self.bits(k)


class Predictor:
    """Section 7.2: what a value is expected to be, one present row after the other."""

    def __init__(self, p: int, column: Column, row: int, value: int, before: Sequence[int | None] | None):
        self.p, self.column, self.before = p, column, before
        self.row, self.last, self.s = row, value, value << 3

    def expected(self, row: int) -> int:
        if self.p == 1:
            return self.column.nominal
        if self.p == 2:
            return (self.s + 4) >> 3
        if self.p == 3:
            assert self.before is not None
            now, then = self.before[row], self.before[self.row]
            if now is not None and then is not None:
                return self.last + now - then
        return self.last

    def take(self, row: int, value: int) -> None:
        self.s += ((value << 3) - self.s) >> 2
        self.row, self.last = row, value

    @property
    def plain(self) -> bool:
        """With predictor 1 the residual of an unsigned column needs no sign."""
        return self.p == 1 and not self.column.signed


def decode(number: int, count: int, body: bytes) -> tuple[list[list[int | None]], bytes]:
    """Section 7.2: the rows, and what follows the columns of a fixed schema (items)."""
    schema = schemas()[number]
    reader = Reader(body)
    columns: list[list[int | None]] = []
    stopped = False
    for column in schema.columns:
        if not schema.fixed and reader.left < 8 and reader.only_zeros_left():
            stopped = True
            break
        columns.append(decode_column(schema, column, count, reader, columns[-1] if columns else None))
    behind = b""
    if schema.fixed:
        if reader.bits(-reader.at % 8):
            raise Refused("padding")
        behind = body[reader.at // 8 :]
    elif not stopped and reader.left >= 8 and reader.only_zeros_left():
        raise Refused("surplus")
    columns += [[None] * count] * (len(schema.columns) - len(columns))
    return [list(row) for row in zip(*columns, strict=True)], behind


def decode_column(
    schema: Schema, column: Column, count: int, reader: Reader, before: list[int | None] | None
) -> list[int | None]:
    values: list[int | None] = [None] * count
    present = list(range(count))
    if reader.bit():
        if reader.bit() == 0:
            return values
        present = [row for row in range(count) if reader.bit()]
        if len(present) in (0, count):
            raise Refused("mask")
    code = reader.exp_golomb(column.k0)
    value = column.nominal + unzigzag(code) if column.signed else code
    if abs(value) > schema.bound:
        raise Refused("value")
    values[present[0]] = value
    if len(present) == 1:
        return values
    p, k = column.predictor, column.k
    if reader.bit():
        p, k = reader.bits(2), reader.bits(4)
    if p == 3 and before is None:
        raise Refused("predictor")
    predictor = Predictor(p, column, present[0], value, before)
    for row in present[1:]:
        expected = predictor.expected(row)
        code = 0 if k == 15 else reader.rice(k)
        value = expected + (code if predictor.plain else unzigzag(code))
        if max(abs(expected), abs(value)) > schema.bound or (value < 0 and not column.signed):
            raise Refused("value")
        values[row] = value
        predictor.take(row, value)
    return values


def exp_golomb(value: int, k: int) -> str:
    w = value + (1 << k)
    return "0" * (w.bit_length() - k - 1) + f"{w:b}"


def rice(code: int, k: int) -> str:
    quotient = code >> k
    head = "1" * quotient + "0" if quotient < 12 else "1" * 12 + exp_golomb(quotient - 12, 0)
    return head + (f"{code & ((1 << k) - 1):0{k}b}" if k else "")


def encode(number: int, rows: Rows) -> bytes:
    """Section 7.3."""
    schema = schemas()[number]
    columns = [list(column) for column in zip(*rows, strict=True)]
    if not schema.fixed:
        while columns and all(value is None for value in columns[-1]):
            columns.pop()
    bits = ""
    for c, values in enumerate(columns):
        bits += encode_column(schema, schema.columns[c], values, columns[c - 1] if c else None)
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def encode_column(
    schema: Schema, column: Column, values: list[int | None], before: list[int | None] | None
) -> str:
    present = [(row, value) for row, value in enumerate(values) if value is not None]
    if not present:
        return "10"
    bits = "0" if len(present) == len(values) else "11" + "".join("01"[v is not None] for v in values)
    first = present[0][1]
    bits += exp_golomb(zigzag(first - column.nominal) if column.signed else first, column.k0)
    if len(present) == 1:
        return bits
    p = column.predictor
    codes, fits = residuals(schema, column, p, present, before)
    must_state = not fits
    if must_state:
        p = 0
        codes, _ = residuals(schema, column, p, present, before)
    nothing = not any(codes)

    def rice_bits(k: int) -> str:
        return "".join(rice(code, k) for code in codes)

    never = 1 << 60
    if must_state or (column.k == 15 and not nothing):
        default = never
    else:
        default = 1 if column.k == 15 else 1 + len(rice_bits(column.k))
    if nothing and default > 7:
        return bits + f"1{p:02b}1111"
    best = min(range(15), key=lambda k: (len(rice_bits(k)), k))
    if not nothing and 7 + len(rice_bits(best)) < default:
        return bits + f"1{p:02b}{best:04b}" + rice_bits(best)
    return bits + "0" + ("" if column.k == 15 else rice_bits(column.k))


def residuals(
    schema: Schema, column: Column, p: int, present: list[tuple[int, int]], before: list[int | None] | None
) -> tuple[list[int], bool]:
    """The codes of all values but the first, and whether no expected value leaves the bound."""
    predictor = Predictor(p, column, *present[0], before)
    codes = []
    fits = True
    for row, value in present[1:]:
        expected = predictor.expected(row)
        fits = fits and abs(expected) <= schema.bound
        codes.append(value - expected if predictor.plain else zigzag(value - expected))
        predictor.take(row, value)
    return codes, fits
