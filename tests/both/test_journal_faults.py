"""The journal on a flash that loses records, refuses them, is small, or loses its power at any operation."""

import gc
import os

import node.journal
from journalkit import accounts, drop_record, files, overwrite, places, raises, read, started, write
from journalworld import Folder, open_for_journal
from node.journal import Journal

try:
    import vfs
    from fakes.nor import Nor, mount, unmount
except ImportError:
    vfs = None

_MOUNT = "/journal-test"


class Mounted:
    """A flash model with LittleFS while it has power."""

    def __init__(self, nor, fresh=False):
        self.nor = nor
        self._fresh = fresh

    def __enter__(self):
        mount(self.nor, _MOUNT, self._fresh)
        return self.nor

    def __exit__(self, kind, error, trace):
        unmount(self.nor, _MOUNT)


# ---- damage


def damaged(folder, number, at):
    """Flip a bit of a segment's file, counted from its end where negative."""
    path = folder + "/" + files(folder)[number]
    data = bytearray(read(path))
    data[at] ^= 4
    overwrite(path, bytes(data))


def test_unreadable_records_are_declared_and_hold_up_nothing():
    with Folder() as folder:
        write(started(folder), 30)
        damaged(folder, 1, -1)
        damaged(folder, 2, 60)
        journal = started(folder, epoch=2)
        created, freed, held, dropped = accounts(journal)
        assert created == 30 and freed == 0 and dropped == 1 + 9
        sent = [place[1] for place in places(journal)]
        assert len(sent) == held
        gaps = [seq for seq in range(30) if seq not in sent]
        assert len(gaps) == dropped
        journal.free(1, gaps[0], 0)
        # The floor takes the gateway over each gap.
        assert journal.floors() == [(1, min([seq for seq in sent if seq > gaps[0]]))]
        journal.free(1, 30, 0)
        assert accounts(journal) == (30, 20, 0, 10)


def test_damaged_end_of_an_epoch_is_told_by_its_floor():
    with Folder() as folder:
        write(started(folder), 5)
        write(started(folder, epoch=2), 5)
        damaged(folder, 0, -1)
        journal = started(folder, epoch=3)
        assert accounts(journal) == (10, 0, 9, 1)
        journal.free(1, 4, 0)
        assert journal.floors()[0] == (1, 5)
        assert len(files(folder)) == 2
        journal.free(1, 5, 0)
        assert len(files(folder)) == 1
        assert accounts(journal) == (10, 4, 5, 1)


def test_gateway_may_have_more_of_an_old_epoch_than_is_still_readable():
    with Folder() as folder:
        write(started(folder), 5)
        damaged(folder, 0, -1)
        journal = started(folder, epoch=2)
        write(journal, 1)
        journal.free(1, 5, 0)
        assert places(journal) == [(2, 0)]
        assert len(files(folder)) == 1


def test_record_that_becomes_unreadable_in_service_does_not_hold_up_the_others():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 27)
        damaged(folder, 1, -1)
        sent = places(journal)
        assert len(sent) == 26 and journal.dropped == 1
        assert accounts(journal) == (27, 0, 26, 1)
        # Also in the segment that is being written: the next record then begins another.
        count = len(files(folder))
        write(journal, 5)
        damaged(folder, -1, -1)
        for _ in range(4):
            write(journal, 1)
        assert len(places(journal)) == journal.held
        accounts(journal)
        assert len(files(folder)) > count
        assert places(Journal(folder, 60000, drop_record, None)) == places(journal)


# ---- a flash that refuses


class Refusing:
    """A file whose flush fails, before anything or after everything reached the flash."""

    def __init__(self, path, mode, durable):
        self._file = open_for_journal(path, mode)
        self._durable = durable
        self._data = b""
        self.refuses = False

    def write(self, data):
        self._data += data

    def flush(self):
        data, self._data = self._data, b""
        if not self.refuses or self._durable:
            self._file.write(data)
            self._file.flush()
        if self.refuses:
            raise OSError(5)

    def close(self):
        self._file.close()
        if self.refuses:
            raise OSError(5)


class RefusingFlash:
    """Opens files for the journal; `refuses` makes every write fail."""

    def __init__(self, durable):
        self._durable = durable
        self._file = None
        self.refuses = False

    def __call__(self, path, mode):
        if mode == "rb":
            return open(path, mode)
        self._file = Refusing(path, mode, self._durable)
        self.set(self.refuses)
        return self._file

    def set(self, refuses):
        self.refuses = refuses
        if self._file is not None:
            self._file.refuses = refuses


def test_refused_record_does_not_exist_and_the_next_gets_its_seq():
    for durable in (False, True):
        with Folder() as folder:
            flash = node.journal.open = RefusingFlash(durable)
            journal = started(folder)
            write(journal, 3)
            for _ in range(3):
                flash.set(True)
                assert raises(OSError, write, journal, 1)
                assert raises(OSError, write, journal, 1)
                flash.set(False)
                assert accounts(journal)[0] == journal.seq
                write(journal, 2)
            assert accounts(journal) == (9, 0, 9, 0)
            assert places(journal) == [(1, seq) for seq in range(9)]
            again = Journal(folder, 60000, drop_record, None)
            assert accounts(again) == (9, 0, 9, 0)
            assert places(again) == [(1, seq) for seq in range(9)]


def test_refusals_drop_nothing_and_move_no_floor():
    for durable in (False, True):
        with Folder() as folder:
            flash = node.journal.open = RefusingFlash(durable)
            write(started(folder, 2400), 5)
            journal = started(folder, 2400, 2)
            write(journal, 10)
            while len(files(folder)) < 4:
                write(journal, 1)
            flash.set(True)
            for _ in range(12):
                before = (accounts(journal), journal.floors(), places(journal))
                assert raises(OSError, write, journal, 1)
                assert (accounts(journal), journal.floors(), places(journal)) == before
            flash.set(False)
            write(journal, 40)
            assert len(files(folder)) <= 4
            assert accounts(journal) == accounts(Journal(folder, 2400, drop_record, None))


# ---- cuts at each flash operation


def _cut_everywhere(prepare, act, verify):
    """Do `act(journal)` on a flash that `prepare()` filled, cut at each of its flash operations; what a boot
    then finds goes to `verify(journal, done)`."""
    node.journal.open = open
    with Mounted(Nor(24), fresh=True) as nor:
        prepare(_MOUNT + "/journal")
        image = nor.image()
    cut = 0
    done = False
    while not done:
        cut += 1
        for torn in (0, 77):
            with Mounted(Nor(image=image, cut=cut, torn=torn)) as nor:
                try:
                    act(_MOUNT + "/journal")
                except OSError:
                    assert nor.dead
                done = not nor.dead
                left = nor.image()
            with Mounted(Nor(image=left)):
                verify(Journal(_MOUNT + "/journal", 1200, drop_record, None), done)
            gc.collect()
    return cut


def test_cut_at_each_flash_operation_of_a_drop_leaves_the_accounts_whole():
    if vfs is None:
        return

    def prepare(folder):
        write(started(folder, 1200), 5)
        write(started(folder, 1200, 2), 7)

    def overflow(folder):
        write(started(folder, 1200, 3), 1)

    seen = []

    def verify(journal, done):
        created, _freed, held, dropped = accounts(journal)
        # Before, between the event and the record, after.
        assert (created, held, dropped) in ((12, 12, 0), (13, 8, 5), (14, 9, 5)), accounts(journal)
        assert len(places(journal)) == held
        assert ((1, 5) in journal.floors()) == (dropped > 0)
        assert not done or created == 14
        if dropped not in seen:
            seen.append(dropped)

    with Folder():
        assert _cut_everywhere(prepare, overflow, verify) > 4
    assert sorted(seen) == [0, 5]


def test_cut_at_each_flash_operation_of_naming_gives_each_run_one_epoch():
    if vfs is None:
        return

    def prepare(folder):
        write(Journal(folder, 60000, drop_record, None), 20)
        write(Journal(folder, 60000, drop_record, None), 12)

    def name_them(folder):
        Journal(folder, 60000, drop_record, None).start_epoch(9)

    seen = []

    def verify(journal, done):
        named = len(places(journal))
        assert not done or named == 32
        if named not in seen:
            seen.append(named)
        # The node has stored 9 before, so the next boot begins behind what it finds.
        journal.start_epoch(max(10, journal.highest_epoch + 1))
        found = places(journal)
        first, second = sorted({place[0] for place in found})
        assert found == [(first, seq) for seq in range(20)] + [(second, seq) for seq in range(12)]
        assert accounts(journal) == (32, 0, 32, 0)

    with Folder():
        assert _cut_everywhere(prepare, name_them, verify) > 4
    assert sorted(seen) == [0, 20, 32]


# ---- a small flash


def test_journal_takes_less_than_its_limit_where_the_flash_is_small():
    if vfs is None:
        return
    with Mounted(Nor(40), fresh=True):
        journal = started(_MOUNT + "/journal", 1024 * 1024)
        write(journal, 900, 180)
        assert journal.dropped > 300
        state = os.statvfs(_MOUNT)
        assert state[3] >= state[2] // 4 - 2
