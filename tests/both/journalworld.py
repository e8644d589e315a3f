"""A journal with its node's epoch and the gateway behind it, and the rules that hold whatever happens.

Runs on CPython and on the MicroPython VM. Every record carries a number that grows in the order of writing,
so that it is known again wherever it turns up.
"""

import os
import sys

import node.journal
from node.journal import Journal
from simpang_protocol.window import BELOW, BEYOND, NEW, WINDOW, ReceiveWindow

AIR = 1
EVENT = 5
_HEAD = 8
_LOST_STEP = 65536
_NUMBERS_PER_APPEND = 100
_BURST = 16


def number_of(record):
    """The number that a record carries."""
    return int.from_bytes(record[4:8], "little")


class Unsynced:
    """A file whose flush does not wait for the disk, as MicroPython's does on Linux. (Its writes are not
    buffered there.)"""

    def __init__(self, path, mode):
        self._file = open(path, mode)  # noqa: SIM115
        self.write = self._file.write
        self.close = self._file.close

    def flush(self):
        pass


def open_for_journal(path, mode):
    """What `open` is for the journal in tests on a plain folder; power cuts are tested on a flash model."""
    if sys.implementation.name == "micropython":
        return Unsynced(path, mode)
    return open(path, mode)


class Folder:
    """A folder that is gone afterwards, for a journal that writes small segments of `segment_bytes`."""

    def __init__(self, segment_bytes=600):
        self._segment_bytes = segment_bytes

    def __enter__(self):
        node.journal.SEGMENT_BYTES, self._segment_bytes = self._segment_bytes, node.journal.SEGMENT_BYTES
        node.journal.open = open_for_journal
        if sys.implementation.name != "micropython":
            import tempfile

            self._temporary = tempfile.TemporaryDirectory()
            self.path = self._temporary.name + "/journal"
        else:
            self.path = "journal_%d" % id(self)
        return self.path

    def __exit__(self, kind, error, trace):
        node.journal.SEGMENT_BYTES = self._segment_bytes
        del node.journal.open
        remove_tree(self.path)
        if sys.implementation.name != "micropython":
            self._temporary.cleanup()


def remove_tree(folder):
    """Remove a folder of files."""
    try:
        for name in os.listdir(folder):
            os.remove(folder + "/" + name)
        os.rmdir(folder)
    except OSError:
        pass


class JournalWorld:
    """`boot` gives power, `append`, `exchange`, `hello`, `raise_epoch`, `sleep` are what a node does with its
    journal, `check` and `drain` compare it with what must be. After a cut of the power call `boot` again.
    """

    def __init__(self, folder, limit_bytes):
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.journal = None
        self.nvs = 1
        self.least = 1
        # The numbers of all durable records, and of those whose append did not return.
        self.durable = 0
        self.doubtful = []
        # Durable records that the gateway does not have and that were not found missing.
        self.open = []
        self.missing = []
        # number -> identity and identity -> number, from the first sight of it
        self.identities = {}
        self.numbers = {}
        # The gateway
        self.highest = 0
        self.windows = {}
        self.given = {}
        self.taken = {}
        self.ledger = []
        # Records dropped before they had an identity, as their events say.
        self.nameless = 0
        self.nameless_events = {}
        self._number = 0
        self._event_number = 0
        self._events = []

    # ---- the node

    def boot(self):
        """Start as the application does: the journal, then the next epoch, if the last one is known."""
        self._open()
        if self.nvs is not None:
            self.raise_epoch(0)

    def sleep(self):
        """Sleep deeply and go on in the same epoch; True where that was possible. What the flash refused
        before may be there all the same: then the node starts as after a cut."""
        journal = self.journal
        state = (journal.epoch, journal.seq) + journal.given(journal.epoch)
        if self.nvs != journal.epoch or not journal.epoch:
            return False
        self._open()
        try:
            self.journal.resume_epoch(state[0], state[1], state[2], state[3])
        except ValueError:
            self.raise_epoch(0)
            return False
        assert (self.journal.epoch, self.journal.seq) == state[:2]
        return True

    def _open(self):
        if self.journal is not None:
            # A reset leaves no file open.
            self.journal._close()
        self.journal = None
        self.given = {}
        journal = Journal(self.folder, self.limit_bytes, self._drop_record, self.next_epoch)
        found = journal.created - self.durable
        assert 0 <= found <= len(self.doubtful), "%d records more than written" % found
        self._became_durable(self.doubtful[:found])
        self.doubtful = []
        self.journal = journal
        self.least = max(1, journal.highest_epoch + 1)

    def lose_epoch(self):
        """The stored epoch is gone at the next boot."""
        self.nvs = None

    def raise_epoch(self, minimum):
        """Begin the next epoch: stored first, then used. A node that lost its epoch waits for `hello`."""
        epoch = max((self.nvs or 0) + 1, minimum, self.least)
        self._save(self.journal.epoch_after(epoch))
        self.journal.start_epoch(epoch)

    def hello(self):
        """The gateway names an epoch for a node that has lost its own."""
        if self.nvs is None or self.journal.epoch == 0:
            self.highest += _LOST_STEP
            self.raise_epoch(self.highest)

    def _save(self, epoch):
        self.nvs = epoch
        self.least = max(self.least, epoch)

    def next_epoch(self):
        if self.nvs is not None:
            self.raise_epoch(0)

    def _drop_record(self, epoch, first, last, records, seq):
        assert first <= last and records > 0
        number = self._event_number + len(self._events)
        self._events.append(number)
        if epoch == 0:
            self.nameless_events[number] = records
        body = number.to_bytes(4, "little") + epoch.to_bytes(3, "little") + last.to_bytes(2, "little")
        return bytes((EVENT, seq & 255, seq >> 8, 0)) + body + records.to_bytes(2, "little")

    def append(self, padding=20):
        """Write one record. What the flash refuses passes through; the record then may exist or not."""
        if not self.doubtful:
            # After a refusal the same record is tried again: one that came through all the same is this one.
            self._number += _NUMBERS_PER_APPEND
            self._event_number = self._number - _NUMBERS_PER_APPEND + 1
        self._events = []
        before = self.journal.created
        try:
            seq = self.journal.prepare()
            head = bytes((AIR, seq & 255, seq >> 8, 0))
            self.journal.append(head + self._number.to_bytes(4, "little") + bytes(padding))
        finally:
            written = self.journal.created - before
            attempt = self._events + [self._number]
            self._became_durable(attempt[:written])
            self.doubtful = attempt[written:]
            self._event_number += min(written, len(self._events))
        assert not self.doubtful

    def _became_durable(self, numbers):
        self.durable += len(numbers)
        for number in numbers:
            self.open.append(number)
            self.nameless += self.nameless_events.pop(number, 0)

    # ---- the gateway

    def exchange(self, is_lost=None):
        """One burst and its answer: floors, then up to 16 records as far as the window reaches; `is_lost()`
        says of each whether the line lost it."""
        journal = self.journal
        if journal.epoch == 0:
            return
        self.highest = max(self.highest, journal.epoch)
        touched = []
        for epoch, floor in journal.floors():
            if floor > self.given.get(epoch, 0) and len(touched) < 4:
                self._give_up(epoch, floor)
                touched.append(epoch)
        place = (0, -1)
        for _ in range(_BURST):
            found = journal.next_after(*place)
            if found is None:
                break
            place = found[:2]
            if place[1] >= self.given.get(place[0], 0) + WINDOW or (is_lost is not None and is_lost()):
                continue
            self._take(place[0], place[1], found[2])
            if place[0] not in touched:
                touched.append(place[0])
        for epoch in sorted(touched)[:3]:
            window = self._window(epoch)
            self.given[epoch] = window.base
            journal.free(epoch, window.base, window.bits)

    def _window(self, epoch):
        if epoch not in self.windows:
            self.windows[epoch] = ReceiveWindow()
        return self.windows[epoch]

    def _give_up(self, epoch, floor):
        for first, last in self._window(epoch).raise_floor(floor):
            self.ledger.append((epoch, first, last))

    def _take(self, epoch, seq, record):
        number = number_of(record)
        verdict = self._window(epoch).take(seq)
        assert verdict != BEYOND, "record %d of epoch %d lies beyond the window" % (seq, epoch)
        if verdict == NEW:
            assert number not in self.taken
            self.taken[number] = (epoch, seq)
            if record[0] == EVENT:
                lost = int.from_bytes(record[_HEAD : _HEAD + 3], "little")
                last = int.from_bytes(record[_HEAD + 3 : _HEAD + 5], "little")
                if lost:
                    self._give_up(lost, last + 1)
        else:
            # Sent again because the answer or a boot was lost, never after it was given up.
            assert self.taken.get(number) == (epoch, seq), (verdict, verdict == BELOW, epoch, seq)

    # ---- the rules

    def walk(self):
        """All records that the journal would send: (epoch, seq, record)."""
        out = []
        found = self.journal.next_after(0, -1)
        while found is not None:
            out.append(found)
            found = self.journal.next_after(found[0], found[1])
        return out

    def check(self):
        """Compare the journal with what was written, taken and given up."""
        journal = self.journal
        created, freed, held, dropped = journal.created, journal.freed, journal.held, journal.dropped
        accounts = (created, freed, held, dropped)
        assert created == self.durable == freed + held + dropped, (self.durable, accounts)
        assert 0 <= freed <= len(self.taken) and held >= 0
        walked = self.walk()
        places = [entry[:2] for entry in walked]
        assert places == sorted(places), "not oldest first"
        numbers = [number_of(entry[2]) for entry in walked]
        assert numbers == sorted(numbers), "not in the order of writing"
        for (epoch, seq), number, entry in zip(places, numbers, walked):
            assert entry[2][1] | entry[2][2] << 8 == seq
            assert self.identities.get(number, (epoch, seq)) == (epoch, seq), "a record changed its identity"
            assert self.numbers.get((epoch, seq), number) == number, "an identity was used twice"
            self.identities[number] = (epoch, seq)
            self.numbers[epoch, seq] = number
        self._check_floors(places)
        self._check_missing(numbers, held - len(walked), dropped)

    def _check_floors(self, places):
        floors = self.journal.floors()
        assert floors == sorted(floors)
        lowest = {}
        for epoch, seq in places:
            lowest[epoch] = min(seq, lowest.get(epoch, seq))
        said = {}
        for epoch, floor in floors:
            assert epoch not in said, "two floors of one epoch"
            said[epoch] = floor
            assert lowest.get(epoch, floor) == floor
        assert [epoch for epoch in lowest if epoch not in said] == []

    def _check_missing(self, numbers, pending, dropped):
        present = set(numbers)
        assert [number for number in self.missing if number in present] == [], "given up, and here again"
        absent = [number for number in self.open if number not in present and number not in self.taken]
        self.open = [number for number in self.open if number in present or number not in self.taken]
        assert 0 <= pending <= len(absent)
        if pending:
            # They have no identity yet, so they are not sent; they are the newest.
            assert absent[-pending:] == self.open[-pending:]
            absent = absent[:-pending]
        if absent and numbers:
            assert absent[-1] < numbers[0], "dropped, though older records are there"
        gone = set(absent)
        self.open = [number for number in self.open if number not in gone]
        self.missing += absent
        assert len(self.missing) <= dropped, "lost, and not declared"
        # After a boot the journal does not know any more what the gateway has, and may count that as dropped.
        assert dropped == len(self.missing) or self.taken, "declared as lost, and not lost"

    def drain(self):
        """Let the gateway take everything; then the accounts balance there too."""
        self.hello()
        for _ in range(10000):
            self.exchange()
            floors = self.journal.floors()
            if not self.journal.held and not [f for f in floors if f[1] > self.given.get(f[0], 0)]:
                break
        self.check()
        assert self.journal.held == 0
        lost = sum([last - first + 1 for _epoch, first, last in self.ledger])
        assert self.durable == len(self.taken) + lost + self.nameless, (
            self.durable,
            len(self.taken),
            lost,
            self.nameless,
        )
        assert self.nameless + lost == len(self.missing)
        for epoch, first, last in self.ledger:
            for seq in range(first, last + 1):
                number = self.numbers.get((epoch, seq))
                assert number is None or number not in self.taken, "given up, though the gateway has it"
