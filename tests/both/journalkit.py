"""Small steps with a journal, for its tests on both interpreters."""

import os

from node.journal import Journal

LAST_SEQ = 0xFEFF


def started(folder, limit_bytes=60000, epoch=1):
    """A journal with an epoch, as after the start of a node; it gives up nothing silently."""
    journal = Journal(folder, limit_bytes, drop_record, None)
    journal.start_epoch(epoch)
    return journal


def drop_record(epoch, first, last, records, seq):
    body = epoch.to_bytes(3, "little") + first.to_bytes(2, "little") + last.to_bytes(2, "little")
    return bytes((5, seq & 255, seq >> 8, 0)) + body + records.to_bytes(2, "little")


def write(journal, count, size=50):
    """Write `count` records whose byte 4 is their number modulo 256."""
    for _ in range(count):
        seq = journal.prepare()
        journal.append(bytes((1, seq & 255, seq >> 8, 0, seq & 255)) + bytes(size))


def places(journal):
    out = []
    found = journal.next_after(0, -1)
    while found is not None:
        out.append(found[:2])
        found = journal.next_after(found[0], found[1])
    return out


def events_in(journal):
    """Drop events that the journal would send."""
    records = [journal.next_after(epoch, seq - 1)[2] for epoch, seq in places(journal)]
    return [record for record in records if record[0] == 5]


def files(folder):
    return sorted(os.listdir(folder))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def overwrite(path, data):
    with open(path, "wb") as file:
        file.write(data)


def accounts(journal):
    assert journal.created == journal.freed + journal.held + journal.dropped
    return journal.created, journal.freed, journal.held, journal.dropped


def raises(kind, what, *arguments):
    try:
        what(*arguments)
    except kind:
        return True
    return False
