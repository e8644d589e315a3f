"""Bits, most significant first, with the two integer codes of the column codec."""

from .errors import CodecError

# A code of 2^30 or more is invalid: every value stays a small integer on a 32-bit node.
CODE_LIMIT = 1 << 30


class BitWriter:
    """Collects bits; `finish` pads the last byte with zeros."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._rest = 0
        self._count = 0

    def put(self, value: int, size: int) -> None:
        """Append the low `size` bits of `value`, which must fit."""
        self._rest = self._rest << size | value
        self._count += size
        while self._count >= 8:
            self._count -= 8
            self._out.append(self._rest >> self._count & 255)
        self._rest &= (1 << self._count) - 1

    def put_exp_golomb(self, value: int, k: int) -> None:
        """Append the Exp-Golomb code of order `k` of a value 0 to 2^30 - 1."""
        if not 0 <= value < CODE_LIMIT:
            raise CodecError("value", "code %d" % value)
        value += 1 << k
        size = k
        while value >> size + 1:
            size += 1
        self.put(0, size - k)
        self.put(value, size + 1)

    def finish(self) -> bytes:
        """Return all bytes."""
        if self._count:
            self._out.append(self._rest << 8 - self._count & 255)
            self._count = 0
            self._rest = 0
        return bytes(self._out)


class BitReader:
    """Reads bits from `data`, beginning at byte `start`. Raises CodecError `truncated` at the end."""

    def __init__(self, data: bytes, start: int = 0) -> None:
        self._data = data
        self._at = start * 8
        self._end = len(data) * 8

    def get(self, size: int) -> int:
        """Return the next `size` bits."""
        at = self._at
        if at + size > self._end:
            raise CodecError("truncated")
        value = 0
        data = self._data
        while size:
            room = 8 - (at & 7)
            take = room if room < size else size
            value = value << take | data[at >> 3] >> room - take & (1 << take) - 1
            at += take
            size -= take
        self._at = at
        return value

    def get_run(self, bit: int, most: int) -> int:
        """Return how many bits equal to `bit` follow, at most `most`; the other bit that ends a shorter run
        is read too."""
        # Inline, because unary codes make up most of a body.
        data = self._data
        at = self._at
        end = self._end
        count = 0
        while count < most:
            if at >= end:
                raise CodecError("truncated")
            found = data[at >> 3] >> (7 - (at & 7)) & 1
            at += 1
            if found != bit:
                break
            count += 1
        self._at = at
        return count

    def get_exp_golomb(self, k: int) -> int:
        """Return a value coded by `put_exp_golomb`; CodecError `code` from 2^30 on."""
        zeros = self.get_run(0, 31)
        if zeros > 30:
            raise CodecError("code")
        value = (1 << zeros + k | self.get(zeros + k)) - (1 << k)
        if value >= CODE_LIMIT:
            raise CodecError("code")
        return value

    def only_padding_left(self) -> bool:
        """True where fewer than eight bits remain and all are zero."""
        left = self._end - self._at
        return left < 8 and (not left or not self._data[self._at >> 3] & (1 << left) - 1)

    def only_zeros_left(self) -> bool:
        """True where every remaining bit is zero."""
        left = -self._at & 7
        if left and self._data[self._at >> 3] & (1 << left) - 1:
            return False
        return not any(self._data[self._at + 7 >> 3 :])

    def next_byte(self) -> int:
        """Return the first whole byte not read. Raises CodecError `padding` where a bit before it is set."""
        left = -self._at & 7
        if left and self._data[self._at >> 3] & (1 << left) - 1:
            raise CodecError("padding")
        return self._at + 7 >> 3
