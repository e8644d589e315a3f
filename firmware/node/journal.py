"""The journal on flash: records survive power cuts, stay until the gateway has them, and are bounded.

Records lie in segment files (segment.py) in one folder. Every cold boot and every epoch begins a new segment,
so a file never has to be continued after a cut; reading stops at the first record that is not whole. A record
exists from the moment `append` returns. After a deep sleep, which cuts nothing, the newest file is continued.

A segment of epoch 0 was written while the node had lost its epoch: its records are kept, and get their
identity by a rename, atomic on LittleFS, once the gateway has named an epoch. What one boot wrote so is a
run: its seqs begin at 0, and all of it gets the same epoch. The run of the present boot goes on in its epoch,
so that the uptime which the node then tells covers the times of those records too.
"""

import os

from node.delivered import Delivered
from node.segment import OVERHEAD, Header, Reader, Segment, damage, frame, name_of, remove, whole_size
from simpang_protocol.frame import LAST_COUNTER as LAST_SEQ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    Event = tuple[int, int, int, int]

# Epochs that were dropped whole, each by a boot during one outage: beyond this only their sum is declared.
_GONE_LIMIT = 100
# A segment fills one flash block of 4096 bytes, so dropping one gives back one block.
SEGMENT_BYTES = 4000
_BLOCK_BYTES = 4096
_RECENT = 4


class Journal:
    """Keeps records in `folder`, at most `limit_bytes` of them (whole segments of 4000 bytes), and fewer
    where a quarter of the file system would not stay free.

    `drop_record(epoch, first, last, records, seq)` builds the durable `drop` event that stands for an epoch
    of which nothing is left; epoch 0 there: the records had no identity yet. `need_epoch()` is called when
    the seqs of an epoch are used up and must lead to `start_epoch`. Counters: `created`, `dropped`, `held`,
    `freed` in records; they always balance.
    """

    def __init__(
        self,
        folder: str,
        limit_bytes: int,
        drop_record: "Callable[[int, int, int, int, int], bytes]",
        need_epoch: "Callable[[], None]",
    ) -> None:
        self._folder = folder
        self._drop_record = drop_record
        self._need_epoch = need_epoch
        try:
            os.mkdir(folder)
        except OSError:
            pass
        # Imported here, so that an application can take it out of memory once the journal is there.
        from node.recover import recover

        found = recover(folder)
        self.created = found.created
        self._dropped = found.dropped
        # Oldest first; those of one epoch stand together.
        self._segments = found.segments
        # epoch: floor, of epochs that are gone without the gateway's knowledge
        self._gone = found.gone
        self._next_index = self._first_index = found.next_index
        self.epoch = 0
        self.seq = 0
        # The newest segment while it is written, and its size.
        self._file: BinaryIO | None = None
        self._size = 0
        self._limit = max(2, min(limit_bytes // SEGMENT_BYTES, self._room()))
        self._delivered = Delivered()
        self._recent: list[tuple[int, int, bytes]] = []
        self._reader = Reader(folder)

    def _room(self) -> int:
        """Segments for which there is room. The rest is for a second application, and for LittleFS, which
        copies a block whenever a record is added to it."""
        state = os.statvfs(self._folder)
        return len(self._segments) + state[1] * (state[3] - state[2] // 4) // _BLOCK_BYTES

    def _path(self, index: int, epoch: int) -> str:
        return self._folder + "/" + name_of(index, epoch)

    def _delete(self, segment: Segment) -> None:
        if segment.index == self._reader.index:
            self._reader.close()
        remove(self._folder, name_of(segment.index, segment.epoch))

    # ---- epochs

    @property
    def highest_epoch(self) -> int:
        """The highest epoch of any segment, 0 for none."""
        return max([segment.epoch for segment in self._segments] + [0])

    def epoch_after(self, epoch: int) -> int:
        """Return what `start_epoch(epoch)` would return: unnamed runs of earlier boots take an epoch each."""
        return self._plan(epoch)[1]

    def _plan(self, epoch: int) -> "tuple[list[int], int, int]":
        """Return the epoch of each segment once the unnamed ones have theirs, and the epoch and seq to go on
        with."""
        given: list[int] = []
        previous = None
        drawn = 0
        for segment in self._segments:
            name = segment.epoch
            if name:
                drawn = 0
            # A cut during an earlier assignment may have left the rest of a run without its epoch.
            elif previous is not None and segment.first > 0 and previous.end == segment.first:
                name = given[-1]
            else:
                name = drawn = epoch
                epoch += 1
            given.append(name)
            previous = segment
        if (
            drawn
            and previous is not None
            and previous.index >= self._first_index
            and previous.end == self.seq
        ):
            return given, drawn, self.seq
        return given, epoch, 0

    def start_epoch(self, epoch: int) -> int:
        """Name the unnamed runs from `epoch` on and return the epoch of new records: that of this boot's run,
        which goes on, or the one after all of them, from seq 0 on.

        Raises OSError where the flash refuses it; what has its epoch keeps it.
        """
        self._close()
        self._reader.close()
        self._recent = []
        given, current, seq = self._plan(epoch)
        for number, segment in enumerate(self._segments):
            if segment.epoch == 0:
                os.rename(self._path(segment.index, 0), self._path(segment.index, given[number]))
                self._segments[number] = Segment(
                    segment.index, given[number], segment.first, segment.count, segment.end
                )
        self.epoch = current
        self.seq = seq
        return current

    def resume_epoch(self, epoch: int, next_seq: int, base: int, bits: int) -> None:
        """Go on in `epoch` after a deep sleep, instead of `start_epoch`: `next_seq` is what `seq` was before,
        `base` and `bits` what `given(epoch)` said.

        Raises ValueError where the journal holds more than that: it went on without this state.
        """
        epochs = [segment.epoch for segment in self._segments]
        last = self._segments[-1] if epoch in epochs else None
        if 0 in epochs or self.highest_epoch > epoch or (last is not None and last.end > next_seq):
            raise ValueError("not the state of this journal")
        self.epoch = epoch
        self.seq = next_seq
        if last is None:
            return
        if last.end < next_seq:
            # The flash lost its end.
            self.created += next_seq - last.end
            if base < next_seq:
                self._segments[-1] = Segment(last.index, epoch, last.first, last.count, next_seq)
        else:
            path = self._path(last.index, epoch)
            try:
                self._size = whole_size(path)
                self._file = open(path, "ab")  # noqa: SIM115 (open until the segment is full)
            except (OSError, ValueError):
                # What does not end with a whole record is not continued.
                pass
        self.free(epoch, base, bits)

    # ---- writing

    def prepare(self) -> int:
        """Return the seq for the next record, after beginning a new epoch where they are used up.

        Raises OSError where no epoch can be stored.
        """
        if self.seq > LAST_SEQ:
            if self.epoch:
                self._need_epoch()
            else:
                self._close()
                self.seq = 0
            if self.seq > LAST_SEQ:
                raise OSError("the seqs of epoch %d are used up" % self.epoch)
        return self.seq

    def append(self, record: bytes) -> None:
        """Make a record durable; its seq must be `self.seq`. Raises OSError where the flash refuses it."""
        if (record[1] | record[2] << 8) != self.seq:
            raise ValueError("seq %d expected" % self.seq)
        try:
            if self._file is None or self._size + len(record) + OVERHEAD > SEGMENT_BYTES:
                self._rotate(record)
            else:
                self._write(self._file, record)
        except OSError:
            # What was written of it ends this segment; the next record begins a new one.
            self._close()
            if self._segments and self._segments[-1].end == self._segments[-1].first:
                self._delete(self._segments.pop())
            raise

    def _write(self, file: "BinaryIO", record: bytes) -> None:
        data = frame(record)
        file.write(data)
        file.flush()
        last = self._segments[-1]
        self._segments[-1] = Segment(last.index, last.epoch, last.first, last.count + 1, last.end + 1)
        self._size += len(data)
        if last.epoch:
            self._recent.append((last.epoch, self.seq, record))
            if len(self._recent) > _RECENT:
                self._recent.pop(0)
        self.seq += 1
        self.created += 1

    def _rotate(self, record: bytes) -> None:
        """Begin a new segment with `record`; where the journal is full, drop the oldest segments, declared
        before they go."""
        self._close()
        count = max(0, len(self._segments) + 1 - self._limit)
        dropped, gone, events = self._give_up(count)
        kept = self._segments[count:]
        index = self._next_index
        self._next_index += 1
        tail = kept[0].index if kept else index
        header = Header(tail, self.created, dropped, self.seq, gone).to_bytes()
        file = open(self._path(index, self.epoch), "wb")  # noqa: SIM115 (open until the segment is full)
        self._file = file
        self._segments.append(Segment(index, self.epoch, self.seq, 0, self.seq))
        self._size = len(header)
        file.write(header)
        for event in events:
            # The event takes the seq that the record was built with, and the record the next one. Without
            # room for both the floor alone declares the loss.
            if self.seq < LAST_SEQ:
                self._write(file, self._drop_record(event[0], event[1], event[2], event[3], self.seq))
                self._settle(kept, dropped, gone)
        self._write(file, bytes((record[0], self.seq & 255, self.seq >> 8)) + record[3:])
        self._settle(kept, dropped, gone)
        # The segment before carried the accounts, and the gateway may have had all of it.
        self._sweep()

    def _give_up(self, count: int) -> "tuple[int, dict[int, int], list[Event]]":
        """Return what the next header and its events say when the oldest `count` segments are dropped."""
        dropped = self._dropped
        gone = dict(self._gone)
        events = []
        first = lost = 0
        for number in range(count):
            victim = self._segments[number]
            if not lost:
                first = victim.first
            here = self._delivered.count_missing(victim) + damage(victim)
            lost += here
            dropped += here
            last = number + 1 == len(self._segments)
            epoch = self.epoch if last else self._segments[number + 1].epoch
            seq = self.seq if last else self._segments[number + 1].first
            if epoch == victim.epoch and seq > 0:
                # More of this epoch, or of this run, stays: its floor says the same.
                continue
            if victim.epoch == 0:
                # Also what was dropped of the run before: nothing else declares it.
                events.append((0, 0, victim.end - 1, victim.end))
            elif self._delivered.base(victim.epoch) < victim.end:
                gone[victim.epoch] = victim.end
                if lost:
                    events.append((victim.epoch, first, victim.end - 1, lost))
            lost = 0
        while len(gone) > _GONE_LIMIT:
            del gone[min(gone)]
        return dropped, gone, events

    def _settle(self, kept: "list[Segment]", dropped: int, gone: "dict[int, int]") -> None:
        """The new segment durably says what is given up: only now may it go."""
        victims = self._segments[: -1 - len(kept)]
        self._segments = kept + self._segments[-1:]
        self._dropped = dropped
        self._gone = gone
        for victim in victims:
            self._delete(victim)
        self._forget_epochs()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                # Every record in it was flushed when it was written.
                pass

    # ---- what the gateway has

    def free(self, epoch: int, base: int, bits: int) -> None:
        """Note that the gateway has every record of `epoch` below `base`, and base + 1 + i for each bit i.

        A segment is deleted once all of it is there; nothing is written for a single record.
        """
        if epoch in self._gone and base >= self._gone[epoch]:
            del self._gone[epoch]
        if epoch == self.epoch and base > self.seq:
            # Nobody has what was not written: such a base would swallow the next records.
            return
        if epoch in [segment.epoch for segment in self._segments]:
            self._delivered.note(epoch, base, bits)
            self._sweep()

    def given(self, epoch: int) -> "tuple[int, int]":
        """Return (base, bits) of an epoch as `free` noted them, (0, 0) where it never did."""
        return self._delivered.known(epoch)

    def _sweep(self) -> None:
        """Delete the segments that the gateway has, but not the newest: it carries the accounts."""
        at = 0
        while at < len(self._segments) - 1:
            segment = self._segments[at]
            if segment.end <= self._delivered.base(segment.epoch):
                self._dropped += damage(segment)
                del self._segments[at]
                self._delete(segment)
            else:
                at += 1
        self._forget_epochs()

    def _forget_epochs(self) -> None:
        self._delivered.forget_all_but([segment.epoch for segment in self._segments])

    @property
    def dropped(self) -> int:
        """Records given up: the journal was full, or its flash lost them."""
        return self._dropped + sum([damage(segment) for segment in self._segments])

    @property
    def held(self) -> int:
        """Records that the gateway is not known to have."""
        return sum([self._delivered.count_missing(segment) for segment in self._segments])

    @property
    def freed(self) -> int:
        """Records that the gateway has."""
        return self.created - self.dropped - self.held

    def holds(self, epoch: int, seq: int) -> bool:
        """True where that record can be read and the gateway is not known to have it."""
        for segment in self._segments:
            if segment.epoch == epoch and 0 <= seq - segment.first < segment.count:
                return not self._delivered.has(epoch, seq)
        return False

    def floors(self) -> "list[tuple[int, int]]":
        """Return (epoch, floor), oldest first: the lowest seq that is held of each epoch, or the seq behind
        its last where nothing is left of it to send. The link says it where the gateway's base is lower: also
        to a gateway whose store was restored from a backup and lacks what the node has forgotten."""
        out = sorted(self._gone.items())
        said = 0
        for number, segment in enumerate(self._segments):
            if segment.epoch in (0, said):
                continue
            base = self._delivered.base(segment.epoch)
            floor = self._delivered.next_missing(segment, base)
            if floor is None:
                last = number + 1 == len(self._segments)
                if last or self._segments[number + 1].epoch != segment.epoch:
                    floor = segment.end
            if floor is not None:
                out.append((segment.epoch, floor))
                said = segment.epoch
        return out

    # ---- reading

    def next_after(self, epoch: int, seq: int) -> "tuple[int, int, bytes] | None":
        """Return (epoch, seq, record) of the first held record behind that one, (0, -1) for the oldest;
        None at the end. A record that cannot be read any more is passed over."""
        for entry in self._recent:
            if entry[0] == epoch and entry[1] == seq + 1 and not self._delivered.has(epoch, seq + 1):
                return entry
        passed = epoch == 0
        for number, segment in enumerate(self._segments):
            if segment.epoch == epoch:
                passed = True
            if passed and segment.epoch:
                found = self._find(number, seq + 1 if segment.epoch == epoch else 0)
                if found is not None:
                    return found
        if not passed:
            # The epoch is gone from the journal: what follows is whatever is oldest now.
            return self.next_after(0, -1)
        return None

    def _find(self, number: int, seq: int) -> "tuple[int, int, bytes] | None":
        segment = self._segments[number]
        want = self._delivered.next_missing(segment, seq)
        if want is None:
            return None
        record = self._reader.read(segment, want)
        if record is None:
            self._note_damage(number, self._reader.seq)
        if record is None or number == len(self._segments) - 1:
            # A reader of the segment that is being written does not see what comes later.
            self._reader.close()
        return None if record is None else (segment.epoch, want, record)

    def _note_damage(self, number: int, seq: int) -> None:
        """Take record `seq` of a segment, and those behind it, as lost: a held record that can never be sent
        would hold up all others."""
        segment = self._segments[number]
        if number == len(self._segments) - 1:
            self._close()
        count = seq - segment.first
        self._segments[number] = Segment(segment.index, segment.epoch, segment.first, count, segment.end)
