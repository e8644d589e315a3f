"""The journal on flash: records survive power cuts, stay until the gateway has them, and are bounded.

Segment files `iiiiiiii.eeeeee` (index, epoch; hex) in one folder. A segment is a header and then records:
    header  "SJ01" | tail u32 | created u32 | dropped u32 | first seq u16 | n u16 | n x gone | crc32
    gone    epoch u24 | floor u16: of this epoch nothing is left, and the gateway does not know yet
    record  length u8 | record without epoch | crc32 over both
Every boot and every epoch begins a new segment, so a file never has to be continued after a cut; reading
stops at the first record that is not whole. `tail` is the lowest index that still counts, `created` and
`dropped` are the accounts before this segment. A record exists from the moment `append` returns.

Epoch 0 in a name means that the node has lost its epoch: its readings are kept, and get their identity by a
rename, atomic on LittleFS, once the gateway has named an epoch.
"""

import os
from binascii import crc32

from simpang_protocol.frame import LAST_COUNTER as LAST_SEQ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

_MAGIC = b"SJ01"
_HEADER_SIZE = 20
_GONE_SIZE = 5
# Epochs that were dropped whole, each by a boot during one outage: beyond this only their sum is declared.
_GONE_LIMIT = 100
_OVERHEAD = 5
# A segment fills one flash block of 4096 bytes, so dropping one gives back one block.
SEGMENT_BYTES = 4000
_RECENT = 4
_WINDOW = 64


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


class _Segment:
    """One file: records `first` to `first + count - 1` of `epoch`."""

    def __init__(self, index: int, epoch: int, first: int) -> None:
        self.index = index
        self.epoch = epoch
        self.first = first
        self.count = 0
        self.head_size = _HEADER_SIZE + 4
        self.size = self.head_size
        self.created_before = 0
        # Records that were durable once and cannot be read any more.
        self.damage = 0


class Journal:
    """Keeps records in `folder`, at most `limit_bytes` of them (whole segments of 4000 bytes).

    `drop_record(epoch, first, last, records, seq)` builds the durable `drop` event that stands for an epoch
    of which nothing is left. `need_epoch()` is called when the seqs of an epoch are used up and must lead to
    `start_epoch`. Counters: `created`, `dropped`, `held`, `freed` in records; they always balance.
    """

    def __init__(
        self,
        folder: str,
        limit_bytes: int,
        drop_record: "Callable[[int, int, int, int, int], bytes]",
        need_epoch: "Callable[[], None]",
    ) -> None:
        self._folder = folder
        self._limit = max(2, limit_bytes // SEGMENT_BYTES)
        self._drop_record = drop_record
        self._need_epoch = need_epoch
        self.created = 0
        self._dropped = 0
        self.epoch = 0
        self.seq = 0
        self._segments: list[_Segment] = []
        self._file: BinaryIO | None = None
        self._next_index = 1
        # epoch: (base, bits), what the gateway has said it holds
        self._freed: dict[int, tuple[int, int]] = {}
        # epoch: floor, of epochs that are gone without the gateway's knowledge
        self._gone: dict[int, int] = {}
        self._recent: list[tuple[int, int, bytes]] = []
        self._reader: BinaryIO | None = None
        self._reader_index = -1
        self._reader_at = (0, -1)
        try:
            os.mkdir(folder)
        except OSError:
            pass
        self._load()

    # ---- opening

    def _load(self) -> None:
        found = []
        for name in os.listdir(self._folder):
            try:
                found.append((int(name[:8], 16), int(name[9:15], 16)))
            except ValueError:
                self._remove(name)
        found.sort()
        tail = 0
        for index, epoch in found:
            segment = _Segment(index, epoch, 0)
            header = self._read_header(segment)
            if header is None:
                self._remove(self._name(index, epoch))
                continue
            tail, self._dropped, self._gone = header
            self._segments.append(segment)
            self._next_index = index + 1
        previous = None
        for segment in list(self._segments):
            if segment.index < tail:
                # Given up before the power went; the accounts already say so.
                self._remove(self._name(segment.index, segment.epoch))
                self._segments.remove(segment)
                continue
            if previous is not None and previous.index + 1 == segment.index:
                previous.damage = max(0, segment.created_before - previous.created_before - previous.count)
            previous = segment
        if previous is not None:
            self.created = previous.created_before + previous.count

    def _read_header(self, segment: _Segment) -> "tuple[int, int, dict[int, int]] | None":
        """Fill in what the file says; return (tail, dropped, gone), or None where its header is not whole."""
        with open(self._path(segment), "rb") as file:
            head = file.read(_HEADER_SIZE)
            if len(head) < _HEADER_SIZE or head[:4] != _MAGIC:
                return None
            head += file.read(_GONE_SIZE * (head[18] | head[19] << 8))
            if file.read(4) != _u32(crc32(head) & 0xFFFFFFFF):
                return None
            segment.created_before = int.from_bytes(head[8:12], "little")
            segment.first = head[16] | head[17] << 8
            segment.head_size = segment.size = len(head) + 4
            while True:
                record = _read_record(file)
                if record is None:
                    break
                segment.count += 1
                segment.size += len(record) + _OVERHEAD
        if segment.count == 0:
            return None
        gone = {}
        for at in range(_HEADER_SIZE, len(head), _GONE_SIZE):
            gone[head[at] | head[at + 1] << 8 | head[at + 2] << 16] = head[at + 3] | head[at + 4] << 8
        return int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little"), gone

    def _name(self, index: int, epoch: int) -> str:
        return "%08x.%06x" % (index, epoch)

    def _path(self, segment: _Segment) -> str:
        return self._folder + "/" + self._name(segment.index, segment.epoch)

    def _remove(self, name: str) -> None:
        os.remove(self._folder + "/" + name)

    # ---- epochs

    @property
    def highest_epoch(self) -> int:
        """The highest epoch of any segment, 0 for none."""
        return max([segment.epoch for segment in self._segments] + [0])

    def start_epoch(self, epoch: int) -> int:
        """Begin `epoch` with seq 0; records that have none yet get it and those after it. Return the epoch
        that is current then."""
        self._close()
        previous = None
        for segment in self._segments:
            if segment.epoch == 0:
                # A cut during an earlier assignment may have left the rest of a run without its epoch.
                goes_on = (
                    previous is not None
                    and segment.first > 0
                    and previous.first + previous.count == segment.first
                )
                old = self._path(segment)
                if goes_on and previous is not None:
                    segment.epoch = previous.epoch
                else:
                    segment.epoch = epoch
                    epoch += 1
                os.rename(old, self._path(segment))
            previous = segment
        self._recent = []
        self._forget_reader()
        self.epoch = epoch
        self.seq = 0
        return epoch

    # ---- writing

    def append(self, record: bytes) -> None:
        """Make a record durable; its seq must be `self.seq`. Raises OSError where the flash refuses it."""
        try:
            segment = self._segments[-1] if self._file is not None else None
            if segment is None or segment.size + len(record) + _OVERHEAD > SEGMENT_BYTES:
                self._rotate(record)
            else:
                self._write(segment, record)
        except OSError:
            # What was written of it ends this segment; the next record begins a new one.
            self._close()
            raise

    def prepare(self) -> int:
        """Return the seq for the next record, after beginning a new epoch where they are used up."""
        if self.seq > LAST_SEQ:
            if self.epoch:
                self._need_epoch()
            else:
                self._close()
                self.seq = 0
        return self.seq

    def _write(self, segment: _Segment, record: bytes) -> None:
        file = self._file
        assert file is not None
        if (record[1] | record[2] << 8) != self.seq:
            raise ValueError("seq %d expected" % self.seq)
        data = bytes((len(record),)) + record
        file.write(data + _u32(crc32(data) & 0xFFFFFFFF))
        file.flush()
        segment.count += 1
        segment.size += len(record) + _OVERHEAD
        self._recent.append((segment.epoch, self.seq, record))
        if len(self._recent) > _RECENT:
            self._recent.pop(0)
        self.seq += 1
        self.created += 1

    def _rotate(self, record: bytes) -> None:
        """Begin a new segment with `record`; where the journal is full, drop the oldest segments, declared
        before they go."""
        self._close()
        victims = self._segments[: max(0, len(self._segments) + 1 - self._limit)]
        kept = self._segments[len(victims) :]
        dropped = self._dropped
        events = []
        for victim in victims:
            lost = self._unfreed(victim)
            dropped += lost + victim.damage
            whole = victim.epoch not in [s.epoch for s in kept] and victim.epoch != self.epoch
            if lost and whole and victim.epoch:
                end = victim.first + victim.count
                events.append((victim.epoch, victim.first, end - 1, lost))
                self._gone[victim.epoch] = end
        while len(self._gone) > _GONE_LIMIT:
            del self._gone[min(self._gone)]
        segment = _Segment(self._next_index, self.epoch, self.seq)
        segment.created_before = self.created
        self._next_index += 1
        tail = kept[0].index if kept else segment.index
        head = _MAGIC + _u32(tail) + _u32(self.created) + _u32(dropped)
        head += bytes((self.seq & 255, self.seq >> 8, len(self._gone), 0))
        for epoch, floor in self._gone.items():
            head += bytes((epoch & 255, epoch >> 8 & 255, epoch >> 16, floor & 255, floor >> 8))
        segment.head_size = segment.size = len(head) + 4
        self._file = open(self._path(segment), "wb")  # noqa: SIM115 (stays open until the segment is full)
        self._file.write(head + _u32(crc32(head) & 0xFFFFFFFF))
        self._segments = self._segments + [segment]
        for event in events:
            # The event takes the seq that the record was built with, and the record the next one.
            self._write(segment, self._drop_record(event[0], event[1], event[2], event[3], self.seq))
            record = bytes((record[0], self.seq & 255, self.seq >> 8)) + record[3:]
        self._write(segment, record)
        # The new segment says that they are given up: only now may they go.
        self._dropped = dropped
        for victim in victims:
            self._segments.remove(victim)
            self._remove(self._name(victim.index, victim.epoch))
        if victims:
            self._forget_reader()
            self._forget_epochs()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # ---- what the gateway has

    def free(self, epoch: int, base: int, bits: int) -> None:
        """Note that the gateway has every record of `epoch` below `base`, and base + 1 + i for each bit i.

        A segment is deleted once all of it is there; nothing is written for a single record.
        """
        if epoch in self._gone and base >= self._gone[epoch]:
            del self._gone[epoch]
        last = -1
        for segment in self._segments:
            if segment.epoch == epoch:
                last = segment.first + segment.count - 1
        if last < 0 or base > last + 1:
            return
        known = self._freed.get(epoch)
        if known is not None and known[0] > base:
            return
        self._freed[epoch] = (base, bits)
        for segment in list(self._segments):
            done = segment.epoch == epoch and segment.first + segment.count <= base
            # The newest segment carries the accounts, so it stays.
            if done and segment is not self._segments[-1]:
                self._segments.remove(segment)
                self._dropped += segment.damage
                self._remove(self._name(segment.index, segment.epoch))
                if segment.index == self._reader_index:
                    self._forget_reader()
        self._forget_epochs()

    def _forget_epochs(self) -> None:
        present = [segment.epoch for segment in self._segments]
        for epoch in list(self._freed):
            if epoch not in present:
                del self._freed[epoch]

    def _is_freed(self, epoch: int, seq: int) -> bool:
        known = self._freed.get(epoch)
        if known is None:
            return False
        ahead = seq - known[0]
        return ahead < 0 or (0 < ahead <= _WINDOW and bool(known[1] >> ahead - 1 & 1))

    def _unfreed(self, segment: _Segment) -> int:
        known = self._freed.get(segment.epoch)
        if known is None:
            return segment.count
        end = segment.first + segment.count
        if end <= known[0]:
            return 0
        first = max(segment.first, known[0])
        freed = 0
        for seq in range(first, min(end, known[0] + _WINDOW + 1)):
            freed += self._is_freed(segment.epoch, seq)
        return end - first - freed

    @property
    def dropped(self) -> int:
        """Records given up: the journal was full, or its flash lost them."""
        return self._dropped + sum([segment.damage for segment in self._segments])

    @property
    def held(self) -> int:
        """Records that the gateway is not known to have."""
        return sum([self._unfreed(segment) for segment in self._segments])

    @property
    def freed(self) -> int:
        """Records that the gateway has."""
        return self.created - self.dropped - self.held

    def floors(self) -> "list[tuple[int, int]]":
        """Return (epoch, floor), oldest first: the lowest seq that is held of each epoch with records, and
        of an epoch that is gone the seq behind its last, until the gateway has moved its base there."""
        out = sorted(self._gone.items())
        for segment in self._segments:
            if segment.epoch and (not out or out[-1][0] != segment.epoch) and self._unfreed(segment):
                seq = segment.first
                known = self._freed.get(segment.epoch)
                if known is not None and known[0] > seq:
                    seq = known[0]
                while self._is_freed(segment.epoch, seq):
                    seq += 1
                out.append((segment.epoch, seq))
        return out

    # ---- reading

    def next_after(self, epoch: int, seq: int) -> "tuple[int, int, bytes] | None":
        """Return (epoch, seq, record) of the first held record behind that one, (0, -1) for the oldest;
        None at the end. A record that cannot be read any more is passed over."""
        for entry in self._recent:
            if entry[0] == epoch and entry[1] == seq + 1 and not self._is_freed(epoch, seq + 1):
                return entry
        passed = epoch == 0
        for segment in self._segments:
            if segment.epoch == 0:
                continue
            if not passed and segment.epoch == epoch:
                passed = True
            if not passed:
                continue
            want = seq + 1 if segment.epoch == epoch else 0
            found = self._find(segment, want)
            if found is not None:
                return found
        if not passed:
            # The epoch is gone from the journal: what follows is whatever is oldest now.
            return self.next_after(0, -1)
        return None

    def _find(self, segment: _Segment, want: int) -> "tuple[int, int, bytes] | None":
        end = segment.first + segment.count
        want = max(want, segment.first)
        while want < end and self._is_freed(segment.epoch, want):
            want += 1
        if want >= end:
            return None
        if self._reader is None or self._reader_index != segment.index or self._reader_at[1] > want:
            self._forget_reader()
            self._reader = open(self._path(segment), "rb")  # noqa: SIM115 (stays open between calls)
            self._reader.read(segment.head_size)
            self._reader_index = segment.index
            self._reader_at = (segment.epoch, segment.first)
        seq = self._reader_at[1]
        found = None
        while seq <= want:
            record = _read_record(self._reader)
            if record is None:
                break
            if seq == want:
                found = (segment.epoch, seq, record)
            seq += 1
        self._reader_at = (segment.epoch, seq)
        if found is None or segment is self._segments[-1]:
            # A reader of the segment that is being written does not see what comes later.
            self._forget_reader()
        return found

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._reader_index = -1


def _read_record(file: "BinaryIO") -> "bytes | None":
    size = file.read(1)
    if not size:
        return None
    rest = file.read(size[0] + 4)
    if len(rest) < size[0] + 4 or _u32(crc32(rest[:-4], crc32(size)) & 0xFFFFFFFF) != rest[-4:]:
        return None
    return rest[:-4]
