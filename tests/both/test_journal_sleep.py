"""The journal across a deep sleep: the same epoch goes on, no seq is used twice, nothing is sent again."""

import os

from journalkit import accounts, drop_record, files, overwrite, places, raises, read, started, write
from journalworld import Folder
from node.journal import Journal


def asleep(folder, journal, limit_bytes=60000):
    """A journal that goes on where `journal` stood, as after a deep sleep."""
    base, bits = journal.given(journal.epoch)
    after = Journal(folder, limit_bytes, drop_record, None)
    after.resume_epoch(journal.epoch, journal.seq, base, bits)
    return after


def test_epoch_and_seq_go_on():
    with Folder() as folder:
        journal = started(folder, epoch=5)
        for cycle in range(30):
            write(journal, 1)
            before = accounts(journal)
            journal = asleep(folder, journal)
            assert (journal.epoch, journal.seq, accounts(journal)) == (5, cycle + 1, before)
        assert places(journal) == [(5, seq) for seq in range(30)]


def test_sleeps_need_no_more_files_than_their_records():
    with Folder() as folder:
        steady = started(folder)
        write(steady, 30)
        expected = files(folder)
    with Folder() as folder:
        journal = started(folder)
        for _ in range(30):
            write(journal, 1)
            journal = asleep(folder, journal)
        assert files(folder) == expected


def test_what_the_gateway_has_is_not_sent_again():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 30)
        journal.free(1, 27, 0b10)
        assert places(journal) == [(1, 27), (1, 28)]
        journal = asleep(folder, journal)
        assert places(journal) == [(1, 27), (1, 28)]
        assert journal.floors() == [(1, 27)] and accounts(journal) == (30, 28, 2, 0)


def test_seq_goes_on_when_every_record_was_freed():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 7)
        journal.free(1, 7, 0)
        journal = asleep(folder, journal)
        write(journal, 1)
        assert places(journal) == [(1, 7)]


def test_seq_goes_on_when_no_file_is_left():
    with Folder() as folder:
        journal = started(folder, epoch=3)
        write(journal, 40)
        journal.free(3, 40, 0)
        for name in files(folder):
            os.remove(folder + "/" + name)
        journal = asleep(folder, journal)
        write(journal, 2)
        assert places(journal) == [(3, 40), (3, 41)]


def test_sleep_before_the_first_record_of_an_epoch_changes_nothing():
    with Folder() as folder:
        write(started(folder, epoch=1), 3)
        journal = asleep(folder, started(folder, epoch=2))
        write(journal, 1)
        assert places(journal) == [(1, 0), (1, 1), (1, 2), (2, 0)]


def test_state_that_the_journal_has_left_behind_is_refused():
    with Folder() as folder:
        write(started(folder, epoch=4), 3)
        journal = Journal(folder, 60000, drop_record, None)
        # A record more than the state knows of, and a later epoch.
        assert raises(ValueError, journal.resume_epoch, 4, 2, 0, 0)
        assert raises(ValueError, journal.resume_epoch, 3, 9, 0, 0)
        assert (journal.epoch, journal.seq) == (0, 0)
        journal.resume_epoch(4, 3, 0, 0)
        write(journal, 1)
        assert places(journal) == [(4, seq) for seq in range(4)]


def test_records_that_wait_for_an_epoch_are_not_slept_over():
    with Folder() as folder:
        write(Journal(folder, 60000, drop_record, None), 2)
        assert raises(ValueError, Journal(folder, 60000, drop_record, None).resume_epoch, 4, 2, 0, 0)


def test_file_that_does_not_end_with_a_whole_record_is_not_continued():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 3)
        name = folder + "/" + files(folder)[0]
        whole = read(name)
        overwrite(name, whole + b"\x37half a record")
        journal = asleep(folder, journal)
        write(journal, 2)
        assert len(files(folder)) == 2
        assert places(started(folder, epoch=2)) == [(1, seq) for seq in range(5)]


def test_end_that_the_flash_lost_in_the_sleep_is_declared():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 6)
        name = folder + "/" + files(folder)[0]
        overwrite(name, read(name)[:-1])
        after = asleep(folder, journal)
        assert accounts(after) == (6, 0, 5, 1)
        write(after, 1)
        assert places(after) == [(1, seq) for seq in (0, 1, 2, 3, 4, 6)]
        after.free(1, 5, 0)
        assert after.floors() == [(1, 6)]
        # What the gateway had of it is not lost.
        journal.free(1, 6, 0)
        for each in files(folder)[1:]:
            os.remove(folder + "/" + each)
        assert accounts(asleep(folder, journal)) == (6, 6, 0, 0)
