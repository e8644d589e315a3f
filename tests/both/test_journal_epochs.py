"""The journal of a node that has lost its epoch: records wait for their identity and get it exactly once."""

import os

import node.journal
from journalkit import LAST_SEQ, accounts, drop_record, events_in, files, places, raises, started, write
from journalworld import Folder
from node.journal import Journal
from node.segment import name_of


class OneRename:
    """A flash that refuses every rename but the first."""

    def __init__(self):
        self._done = False

    def rename(self, old, new):
        if self._done:
            raise OSError(28)
        self._done = True
        os.rename(old, new)


def test_records_without_an_epoch_are_kept_and_not_sent():
    with Folder() as folder:
        journal = Journal(folder, 60000, drop_record, None)
        write(journal, 3)
        assert places(journal) == [] and journal.floors() == []
        assert accounts(journal) == (3, 0, 3, 0)
        assert journal.start_epoch(70000) == 70000
        assert places(journal) == [(70000, 0), (70000, 1), (70000, 2)]


def test_run_of_this_boot_goes_on_in_its_epoch_and_those_of_earlier_boots_do_not():
    with Folder() as folder:
        write(Journal(folder, 60000, drop_record, None), 4)
        journal = Journal(folder, 60000, drop_record, None)
        write(journal, 20)
        assert journal.epoch_after(9) == 10
        assert journal.start_epoch(9) == 10
        write(journal, 2)
        expected = [(9, seq) for seq in range(4)] + [(10, seq) for seq in range(22)]
        assert places(journal) == expected and accounts(journal) == (26, 0, 26, 0)
        # The next one is new in every way.
        assert journal.start_epoch(11) == 11
        write(journal, 1)
        assert places(journal) == expected + [(11, 0)]
        assert places(started(folder, epoch=12)) == expected + [(11, 0)]


def test_rest_of_this_boots_run_is_not_continued_where_its_beginning_has_an_earlier_epoch():
    with Folder() as folder:
        journal = Journal(folder, 60000, drop_record, None)
        write(journal, 30)
        node.journal.os = OneRename()
        try:
            assert raises(OSError, journal.start_epoch, 9)
        finally:
            node.journal.os = os
        write(journal, 1)
        # 9 was stored, and may not be begun a second time.
        assert journal.start_epoch(10) == 10 and journal.seq == 0
        assert places(journal) == [(9, seq) for seq in range(31)]


def test_each_boot_without_an_epoch_gets_one_of_its_own_in_the_order_of_writing():
    with Folder() as folder:
        for count in (20, 3, 15):
            write(Journal(folder, 60000, drop_record, None), count)
        journal = Journal(folder, 60000, drop_record, None)
        assert journal.start_epoch(9) == 12
        expected = [(9, seq) for seq in range(20)] + [(10, seq) for seq in range(3)]
        assert places(journal) == expected + [(11, seq) for seq in range(15)]
        # Exactly once: another epoch changes nothing of it.
        assert Journal(folder, 60000, drop_record, None).start_epoch(13) == 13
        assert places(started(folder, epoch=14)) == places(journal)


def test_rest_of_a_run_gets_the_epoch_of_its_beginning_wherever_the_renames_were_cut():
    for done in range(4):
        with Folder() as folder:
            write(Journal(folder, 60000, drop_record, None), 30)
            names = [name for name in files(folder) if name.endswith(".000000")]
            assert len(names) > 3
            for name in names[:done]:
                os.rename(folder + "/" + name, folder + "/" + name_of(int(name[:8], 16), 9))
            journal = Journal(folder, 60000, drop_record, None)
            epoch = 10 if done else 9
            journal.start_epoch(epoch)
            assert places(journal) == [(9, seq) for seq in range(30)]


def test_rest_of_a_run_keeps_its_epoch_when_the_beginning_is_dropped_before_the_next_is_named():
    with Folder() as folder:
        write(Journal(folder, 60000, drop_record, None), 30)
        first = files(folder)[0]
        os.rename(folder + "/" + first, folder + "/" + name_of(int(first[:8], 16), 9))
        # The node has lost its epoch again, and the journal overflows before the gateway names another.
        journal = Journal(folder, 2400, drop_record, None)
        write(journal, 1)
        journal.start_epoch(20)
        floors = journal.floors()
        assert [floor[0] for floor in floors] == [9, 20]
        assert floors[0][1] == journal.dropped


def test_run_whose_beginning_was_dropped_begins_with_a_floor():
    with Folder() as folder:
        journal = Journal(folder, 1800, drop_record, None)
        write(journal, 40)
        dropped = journal.dropped
        journal.start_epoch(9)
        assert journal.floors() == [(9, dropped)]
        assert places(journal)[0] == (9, dropped)


def test_run_that_was_dropped_whole_is_told_by_an_event_without_an_epoch():
    with Folder() as folder:
        write(Journal(folder, 1200, drop_record, None), 25)
        journal = Journal(folder, 1200, drop_record, None)
        write(journal, 20)
        journal.start_epoch(9)
        # All 25, also those that were dropped before the last of them.
        assert events_in(journal) == [drop_record(0, 0, 24, 25, 9)]
        assert journal.floors() == [(9, 9)]
        assert accounts(journal) == (46, 0, 12, 25 + 9)


def test_seqs_that_run_out_without_an_epoch_begin_another_run():
    with Folder() as folder:
        journal = Journal(folder, 60000, drop_record, None)
        journal.seq = LAST_SEQ - 1
        write(journal, 4)
        journal.start_epoch(5)
        assert places(journal) == [(5, LAST_SEQ - 1), (5, LAST_SEQ), (6, 0), (6, 1)]


def test_seqs_that_run_out_while_no_epoch_can_be_stored_are_a_refusal():
    with Folder() as folder:
        asked = []
        journal = Journal(folder, 60000, drop_record, lambda: asked.append(1))
        journal.start_epoch(5)
        journal.seq = LAST_SEQ + 1
        assert raises(OSError, journal.prepare)
        assert asked == [1]
