"""A node that is alone for longer than its seqs and its journal last: what it could not keep is declared."""

from journalworld import Folder
from linkworld import World
from node.journal import SEGMENT_BYTES
from simpang_protocol import record, schema

RECORDS = 70000
LAST_SEQ = 0xFEFF


class Unrecorded:
    """Stands where the world records frames: here they would fill the memory."""

    def append(self, frame):
        pass


def test_70000_records_offline_leave_balanced_accounts():
    with Folder(SEGMENT_BYTES) as folder:
        _outlast(World(1, folder))


def _outlast(world):
    world.recorded_up = world.recorded_down = Unrecorded()
    world.gateway.start()
    world.node.boot()
    assert world.run_until(lambda: world.node.link.counters.get("acks"), 5000)
    first_epoch = world.node.link.epoch
    world.gateway.kill()
    for value in range(RECORDS):
        world.node.create(value)
    journal = world.node.journal
    assert world.node.link.epoch == first_epoch + 1
    assert journal.dropped > 60000
    # The first epoch is gone; its drop event took a seq of the second.
    assert journal.created == RECORDS + 1
    assert journal.created == journal.freed + journal.held + journal.dropped
    held = journal.held
    world.gateway.start()
    assert world.run_until(lambda: journal.held == 0, 120000)
    lost = sum([last - first + 1 for _epoch, first, last in world.gateway.losses])
    assert lost == journal.dropped
    assert journal.created == len(world.gateway.rows) + lost
    assert held == len(world.gateway.rows)
    by_epoch = {}
    for epoch, first, last in world.gateway.losses:
        by_epoch[epoch] = by_epoch.get(epoch, 0) + last - first + 1
    assert by_epoch[first_epoch] == LAST_SEQ + 1
    # What was kept is the newest, in the order of writing, each once. (No list of it: the VM's memory is in
    # small pieces by now.)
    expected = None
    for _epoch, _seq, body in world.gateway.rows:
        parsed = record.parse(body)
        if parsed.schema == schema.AIR.number:
            value = parsed.rows[0][0]
            assert expected in (None, value)
            expected = value + 1
    assert expected == RECORDS
