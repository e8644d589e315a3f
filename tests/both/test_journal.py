"""The journal: what is durable stays, and what a full journal must give up is declared."""

import os
import random

from journalkit import (
    LAST_SEQ,
    accounts,
    drop_record,
    events_in,
    files,
    overwrite,
    places,
    raises,
    read,
    started,
    write,
)
from journalworld import Folder, JournalWorld, number_of
from node.delivered import Delivered
from node.journal import Journal
from node.segment import Segment, name_of, parse_name


def test_records_come_back_unchanged_and_oldest_first_after_each_boot():
    with Folder() as folder:
        for boot in range(1, 4):
            journal = started(folder, epoch=boot)
            write(journal, 20, boot)
        expected = [(epoch, seq) for epoch in (1, 2, 3) for seq in range(20)]
        assert places(journal) == expected
        journal = started(folder, epoch=4)
        assert places(journal) == expected
        assert journal.next_after(2, 6)[2] == bytes((1, 7, 0, 0, 7)) + bytes(2)
        assert accounts(journal) == (60, 0, 60, 0)
        assert journal.highest_epoch == 3


def test_record_with_another_seq_than_the_next_is_refused_and_changes_nothing():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 1)
        assert raises(ValueError, journal.append, bytes((1, 3, 0, 0)) + bytes(20))
        write(journal, 1)
        assert places(journal) == [(1, 0), (1, 1)]


def test_record_that_was_cut_anywhere_is_left_out_and_those_before_it_stay():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 3, 10)
        path = folder + "/" + files(folder)[0]
        whole = read(path)
        one = 10 + 5 + 5
        for size in range(len(whole) - one, len(whole)):
            overwrite(path, whole[:size])
            journal = Journal(folder, 60000, drop_record, None)
            assert accounts(journal) == (2, 0, 2, 0), size
            assert places(journal) == [(1, 0), (1, 1)]


def test_segment_without_a_whole_record_is_removed_and_the_one_before_keeps_the_accounts():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 3)
        write(started(folder, epoch=2), 1)
        newest = folder + "/" + files(folder)[1]
        whole = read(newest)
        for size in (0, 3, 19, 23, 24, 40, len(whole) - 1):
            overwrite(newest, whole[:size])
            journal = Journal(folder, 60000, drop_record, None)
            assert accounts(journal) == (3, 0, 3, 0)
            assert len(files(folder)) == 1


def test_files_that_are_no_segments_do_not_disturb():
    with Folder() as folder:
        write(started(folder), 5)
        for name in ("x", "00000001.00000z", "0000001.0000001", "00000001_000001", "0000000A.000001"):
            overwrite(folder + "/" + name, b"nothing")
        overwrite(folder + "/" + name_of(9, 1), b"SJ01 and then nothing")
        os.mkdir(folder + "/" + name_of(7, 7))
        assert places(started(folder, epoch=2)) == [(1, seq) for seq in range(5)]
        # What could not be removed stays without effect.
        assert len([name for name in files(folder) if name != name_of(7, 7)]) == 1
        if name_of(7, 7) in files(folder):
            os.rmdir(folder + "/" + name_of(7, 7))


def test_names_are_those_of_segments_or_nothing():
    assert parse_name(name_of(26, 0xFEDCBA)) == (26, 0xFEDCBA)
    for name in ("", "0000001a", "0000001a.", "0000001a.fedcbag", "+000001a.fedcba", "0000001A.fedcba"):
        assert parse_name(name) is None


# ---- what the gateway has


def test_segments_are_deleted_once_the_gateway_has_all_of_them_and_the_newest_stays():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 30)
        many = len(files(folder))
        assert many > 3
        journal.free(1, 9, 0)
        assert len(files(folder)) == many - 1
        assert accounts(journal) == (30, 9, 21, 0)
        journal.free(1, 30, 0)
        assert len(files(folder)) == 1
        assert accounts(journal) == (30, 30, 0, 0)
        assert journal.next_after(0, -1) is None
        # A gateway whose store was restored from a backup may not have them any more: it is told.
        assert journal.floors() == [(1, 30)]
        # The last one goes when another carries the accounts.
        journal.start_epoch(2)
        write(journal, 1)
        assert len(files(folder)) == 1
        assert accounts(Journal(folder, 60000, drop_record, None)) == (31, 30, 1, 0)


def test_records_behind_the_base_are_freed_one_by_one():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 8)
        journal.free(1, 2, 0b1010)
        # Bit i stands for base + 1 + i: 4 and 6.
        assert places(journal) == [(1, 2), (1, 3), (1, 5), (1, 7)]
        assert journal.floors() == [(1, 2)]
        assert accounts(journal) == (8, 4, 4, 0)
        journal.free(1, 1, 0)
        assert accounts(journal)[1] == 4
        journal.free(1, 3, 0b101)
        assert places(journal) == [(1, 3), (1, 5), (1, 7)]


def test_delivered_knows_exactly_the_records_below_the_base_and_those_with_a_bit():
    for base in (0, 1, 50, 64, 200):
        for bits in (0, 1, 1 << 63, 0x5555555555555555, (1 << 64) - 1):
            known = Delivered()
            known.note(3, base, bits)
            held = [seq < base or (seq > base and bool(bits >> (seq - base - 1) & 1)) for seq in range(300)]
            assert [known.has(3, seq) for seq in range(300)] == held
            assert not known.has(4, 0)
            for first, count in ((0, 300), (base, 1), (max(0, base - 5), 90), (base + 60, 9)):
                segment = Segment(1, 3, first, count, first + count)
                missing = [seq for seq in range(first, first + count) if seq >= 300 or not held[seq]]
                assert known.count_missing(segment) == len(missing)
                for at in (0, first, base, base + 30):
                    rest = [seq for seq in missing if seq >= at]
                    assert known.next_missing(segment, at) == (rest[0] if rest else None)


def test_base_behind_what_was_written_frees_nothing():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 3)
        journal.free(1, 4, 0)
        journal.free(2, 9, 0)
        write(journal, 2)
        assert places(journal) == [(1, seq) for seq in range(5)]


def test_record_that_the_gateway_has_is_sent_again_after_a_boot_and_freed_again():
    with Folder() as folder:
        journal = started(folder)
        write(journal, 5)
        journal.free(1, 3, 0)
        journal = started(folder, epoch=2)
        assert accounts(journal) == (5, 0, 5, 0)
        journal.free(1, 5, 0)
        assert accounts(journal) == (5, 5, 0, 0)


# ---- full


def test_full_journal_drops_whole_segments_oldest_first_and_counts_them():
    with Folder() as folder:
        journal = started(folder, 2400)
        write(journal, 100)
        created, freed, held, dropped = accounts(journal)
        assert (created, freed) == (100, 0) and dropped > 50
        assert places(journal) == [(1, seq) for seq in range(dropped, 100)]
        assert journal.floors() == [(1, dropped)]
        assert len(files(folder)) <= 4
        assert accounts(Journal(folder, 2400, drop_record, None)) == (created, freed, held, dropped)


def test_what_the_gateway_has_is_not_counted_as_dropped():
    with Folder() as folder:
        journal = started(folder, 2400)
        write(journal, 5)
        journal.free(1, 2, 0b1)
        write(journal, 60)
        assert accounts(journal)[1] == 3
        assert journal.dropped == min([place[1] for place in places(journal)]) - 3


def test_floor_says_what_was_dropped_before_records_that_only_bits_free():
    with Folder() as folder:
        journal = started(folder, 1800)
        write(journal, 18, 40)
        newest = [seq for seq in range(18) if seq > 10]
        journal.free(1, 0, sum([1 << seq - 1 for seq in newest]))
        journal.start_epoch(2)
        write(journal, 20, 40)
        # Of epoch 1 nothing is left to send, but the gateway waits for what was dropped of it.
        assert [place for place in places(journal) if place[0] == 1] == []
        assert journal.floors()[0] == (1, 18)
        journal.free(1, 18, 0)
        assert [floor for floor in journal.floors() if floor[0] == 1] == []
        assert accounts(journal)[1] == len(newest)


def test_epoch_that_was_dropped_whole_is_told_by_an_event_and_a_floor_until_the_gateway_knows():
    with Folder() as folder:
        write(started(folder, 1800), 5)
        write(started(folder, 1800, 2), 5)
        journal = started(folder, 1800, 3)
        write(journal, 30)
        assert journal.floors()[:2] == [(1, 5), (2, 5)]
        journal = started(folder, 1800, 4)
        write(journal, 1)
        assert journal.floors()[:2] == [(1, 5), (2, 5)]
        journal.free(1, 5, 0)
        journal.free(2, 4, 0)
        assert journal.floors()[0] == (2, 5)
        journal.free(2, 5, 0)
        write(journal, 15)
        assert [floor for floor in Journal(folder, 1800, drop_record, None).floors() if floor[0] < 3] == []


def test_drop_event_names_epoch_range_and_count():
    with Folder() as folder:
        write(started(folder, 1200), 5)
        journal = started(folder, 1200, 2)
        write(journal, 10)
        assert events_in(journal) == [drop_record(1, 0, 4, 5, 9)]
        assert accounts(journal) == (16, 0, 11, 5)


def test_boots_during_an_outage_are_bounded_too():
    with Folder() as folder:
        for epoch in range(1, 151):
            write(started(folder, 1200, epoch), 1)
        journal = started(folder, 1200, 151)
        floors = journal.floors()
        assert len(floors) <= 102
        assert floors[0][0] > 1 and floors == sorted(floors)
        created, freed, held, dropped = accounts(journal)
        assert freed == 0 and created == 150 + 148 and held + dropped == created


def test_drop_event_never_takes_a_seq_that_does_not_exist():
    for spare in (0, 1, 2):
        with Folder() as folder:
            write(started(folder, 1200), 5)
            journal = started(folder, 1200, 2)
            journal.seq = LAST_SEQ - 9 - spare
            write(journal, 10)
            assert max([place[1] for place in places(journal)]) <= LAST_SEQ
            assert journal.floors()[0] == (1, 5)
            assert accounts(journal)[3] == 5


def test_smaller_limit_after_a_boot_drops_at_once_what_is_too_much():
    with Folder() as folder:
        write(started(folder), 60)
        write(started(folder, epoch=2), 20)
        assert len(files(folder)) > 6
        journal = started(folder, 1800, 3)
        assert accounts(journal) == (80, 0, 80, 0)
        write(journal, 1)
        assert len(files(folder)) == 3
        assert accounts(journal)[3] == journal.created - journal.held > 60


def test_victims_that_outlived_a_cut_are_removed_at_boot_and_not_counted_twice():
    with Folder() as folder:
        journal = started(folder, 1800)
        write(journal, 27)
        while len(files(folder)) < 3:
            write(journal, 1)
        oldest = files(folder)[0]
        before = read(folder + "/" + oldest)
        while oldest in files(folder):
            write(journal, 1)
        expected = accounts(journal)
        overwrite(folder + "/" + oldest, before)
        assert accounts(Journal(folder, 1800, drop_record, None)) == expected
        assert oldest not in files(folder)


def test_segment_whose_first_record_was_cut_gives_up_nothing():
    with Folder() as folder:
        journal = started(folder, 1200)
        write(journal, 18)
        oldest = files(folder)[0]
        before = read(folder + "/" + oldest)
        write(journal, 1)
        assert journal.dropped == 9
        newest = folder + "/" + files(folder)[-1]
        overwrite(newest, read(newest)[:-1])
        overwrite(folder + "/" + oldest, before)
        for _ in range(2):
            journal = Journal(folder, 1200, drop_record, None)
            assert accounts(journal) == (18, 0, 18, 0)
            assert places(journal) == [(1, seq) for seq in range(18)]


# ---- everything together


def test_random_lives_keep_every_rule():
    for _ in range(6):
        with Folder() as folder:
            world = JournalWorld(folder, random.choice((1200, 3000, 9000)))
            world.boot()
            for _step in range(250):
                chance = random.randrange(100)
                if chance < 70:
                    world.append(random.randrange(150))
                elif chance < 85:
                    world.exchange(lambda: random.randrange(3) == 0)
                elif chance < 88:
                    world.next_epoch()
                elif chance < 91:
                    world.boot()
                elif chance < 92:
                    world.lose_epoch()
                    world.boot()
                elif chance < 94:
                    world.hello()
                elif chance < 96:
                    world.sleep()
                else:
                    world.check()
            world.drain()


def test_numbers_of_records_are_read_back():
    with Folder() as folder:
        world = JournalWorld(folder, 6000)
        world.boot()
        world.append()
        world.append()
        assert [number_of(entry[2]) for entry in world.walk()] == [100, 200]
