"""Node link and session joined: nothing is lost, nothing comes twice, whatever the line and the power do."""

import random

from linkworld import World
from simpang_protocol.frame import parse_header

try:
    import tempfile

    _KEEP = tempfile.TemporaryDirectory()
    FOLDER = _KEEP.name + "/journal"
except ImportError:  # the VM runs in a folder of its own
    FOLDER = "link_journal"


def _world(seed=1):
    return World(seed, FOLDER)


def _all_there(world, count):
    return len(world.values()) == count and world.node.journal.held == 0


def _check(world, values):
    found = world.values()
    missing = [value for value in values if value not in found]
    assert not missing, "lost: %s" % missing[:10]
    twice = [value for value in found if len(found[value]) > 1]
    assert not twice, "twice: %s" % twice[:10]
    identities = [row[:2] for row in world.gateway.rows]
    assert len(identities) == len(set(identities)), "one identity for two rows"


def test_a_new_node_gets_its_epoch_from_the_gateway():
    world = _world()
    world.gateway.start()
    world.node.boot()
    assert world.node.link.epoch is None
    world.node.create(5)
    assert world.run_until(lambda: world.node.link.greeted, 3000)
    assert world.node.link.epoch >= 65536
    assert world.run_until(lambda: _all_there(world, 1), 3000)
    _check(world, [5])
    assert world.node.times and world.node.times[0][1]


def test_records_arrive_once_on_a_bad_line():
    world = _world(2)
    world.loss_up = world.loss_down = 0.3
    world.flip = 0.05
    world.repeat = 0.1
    world.gateway.start()
    world.node.boot()
    made = []

    def create(now):
        if now % 40 == 0 and now < 12000:
            made.append(now)
            world.node.create(now)

    world.run(12000, create)
    assert world.run_until(lambda: _all_there(world, len(made)), 120000)
    _check(world, made)
    assert world.node.journal.dropped == 0


def test_gateway_kills_and_node_power_cuts_lose_nothing():
    world = _world(3)
    world.loss_up = world.loss_down = 0.1
    world.gateway.start()
    world.node.boot()
    made = []

    def live(now):
        if world.node.on and now % 50 == 0:
            made.append(now)
            world.node.create(now)
        if now % 3001 == 0:
            world.gateway.kill()
        if now % 3001 == 700:
            world.gateway.start()
        if now in (5000, 11000):
            world.node.cut()
        if now in (5600, 11200):
            world.node.boot()

    world.run(16000, live)
    if not world.gateway.on:
        world.gateway.start()
    assert world.run_until(lambda: _all_there(world, len(made)), 120000)
    _check(world, made)
    assert len(world.gateway.nonces) == len(set(world.gateway.nonces))


def test_a_failed_commit_is_never_acknowledged():
    world = _world(4)
    world.gateway.start()
    world.node.boot()
    assert world.run_until(lambda: world.node.link.counters.get("acks"), 5000)
    world.gateway.fail_commits = 3
    for value in range(1, 40):
        world.node.create(value)
    world.run(60)
    assert world.node.journal.held == 39
    assert world.run_until(lambda: _all_there(world, 39), 30000)
    _check(world, range(1, 40))


def test_a_lost_hello_answer_is_asked_for_again():
    world = _world(5)
    world.gateway.start()
    world.node.boot()
    world.node.create(1)
    world.loss_down = 1.0
    world.run(2500)
    assert not world.node.link.greeted
    world.loss_down = 0.0
    assert world.run_until(lambda: _all_there(world, 1), 20000)
    # Every attempt of that boot was promised the same epoch, 65536: 16 million would not last for ever.
    # The record that waited took it, and the boot goes on in it.
    assert world.node.link.epoch == 65536


def test_a_blank_nvs_never_reuses_an_epoch():
    world = _world(6)
    world.gateway.start()
    world.node.boot()
    world.node.create(1)
    assert world.run_until(lambda: _all_there(world, 1), 20000)
    first = world.node.link.epoch
    world.node.cut()
    world.node.nvs.value = None
    world.node.boot()
    world.node.create(2)
    sealed = len([f for f in world.recorded_up if parse_header(f).kind in (1, 3)])
    world.gateway.kill()
    world.run(3000)
    assert len([f for f in world.recorded_up if parse_header(f).kind in (1, 3)]) == sealed
    world.gateway.start()
    assert world.run_until(lambda: _all_there(world, 2), 60000)
    assert world.node.link.epoch == first + 65536
    _check(world, [1, 2])


def test_what_the_journal_cannot_hold_is_declared():
    world = _world(7)
    world.node.limit_bytes = 16000
    world.gateway.start()
    world.node.boot()
    assert world.run_until(lambda: world.node.link.counters.get("acks"), 5000)
    world.gateway.kill()
    for value in range(1, 3000):
        world.node.create(value)
    assert world.node.journal.dropped > 0
    world.gateway.start()
    assert world.run_until(lambda: world.node.journal.held == 0, 60000)
    journal = world.node.journal
    lost = sum([last - first + 1 for _epoch, first, last in world.gateway.losses])
    assert lost == journal.dropped
    assert journal.created == len(world.gateway.rows) + lost


def test_an_epoch_that_was_dropped_whole_is_declared_by_its_event():
    world = _world(8)
    world.node.limit_bytes = 12000
    world.gateway.start()
    world.node.boot()
    assert world.run_until(lambda: world.node.link.counters.get("acks"), 5000)
    world.gateway.kill()
    created = 0
    for _boot in range(3):
        for value in range(1, 100):
            world.node.create(value)
        created += 99
        world.node.cut()
        world.node.boot()
    for value in range(1000, 2500):
        world.node.create(value)
    world.gateway.start()
    assert world.run_until(lambda: world.node.journal.held == 0, 60000)
    journal = world.node.journal
    lost = sum([last - first + 1 for _epoch, first, last in world.gateway.losses])
    assert journal.dropped > 0
    assert lost == journal.dropped
    assert journal.created == len(world.gateway.rows) + lost


def test_seqs_run_out_and_the_next_epoch_begins():
    world = _world(9)
    world.node.limit_bytes = 40000
    world.gateway.start()
    world.node.boot()
    assert world.run_until(lambda: world.node.link.counters.get("acks"), 5000)
    first = world.node.link.epoch
    world.node.journal.seq = 0xFEF0
    for value in range(1, 40):
        world.node.create(value)
    assert world.node.link.epoch == first + 1
    assert world.run_until(lambda: world.node.journal.held == 0, 60000)
    found = world.values()
    assert sorted(found) == list(range(1, 40))
    assert max([seq for places in found.values() for _epoch, seq in places]) == 0xFEFF


def test_a_new_store_takes_what_the_node_still_has_and_calls_the_rest_older_than_itself():
    world = _world(10)
    world.gateway.start()
    world.node.boot()
    for value in range(1, 200):
        world.node.create(value)
    assert world.run_until(lambda: _all_there(world, 199), 60000)
    world.gateway.kill()
    world.gateway.new_store()
    world.gateway.start()
    for value in range(200, 220):
        world.node.create(value)
    assert world.run_until(lambda: world.node.journal.held == 0, 60000)
    found = world.values()
    assert [value for value in range(200, 220) if value not in found] == []
    assert world.gateway.counters.get("beyond_window", 0) < 40
    assert len(world.gateway.nonces) == len(set(world.gateway.nonces))


def test_replayed_and_damaged_frames_change_nothing():
    world = _world(11)
    world.gateway.start()
    world.node.boot()
    for value in range(1, 20):
        world.node.create(value)
    assert world.run_until(lambda: _all_there(world, 19), 60000)
    rows = list(world.gateway.rows)
    for frame in list(world.recorded_up):
        world._carry(frame, 0, world.gateway.take)
        damaged = bytearray(frame)
        damaged[random.randrange(9, len(frame))] ^= 1 << random.randrange(8)
        world._carry(bytes(damaged), 0, world.gateway.take)
    for frame in list(world.recorded_down):
        world._carry(frame, 0, world.node.take)
    acks = world.node.link.counters.get("acks")
    world.run(1000)
    assert world.gateway.rows == rows
    assert world.gateway.counters["replay"] and world.gateway.counters["bad_mic"]
    assert world.node.link.counters.get("acks") == acks
    world.node.create(77)
    assert world.run_until(lambda: _all_there(world, 20), 60000)


def test_a_replay_after_a_gateway_restart_is_refused():
    world = _world(12)
    world.gateway.start()
    world.node.boot()
    for value in range(1, 20):
        world.node.create(value)
    assert world.run_until(lambda: _all_there(world, 19), 60000)
    world.node.cut()
    rows = list(world.gateway.rows)
    world.gateway.kill()
    world.gateway.start()
    for frame in list(world.recorded_up):
        world._carry(frame, 0, world.gateway.take)
    world.run(3000)
    assert world.gateway.rows == rows


def test_a_node_that_starts_again_and_again_is_not_kept_out():
    world = _world(13)
    world.gateway.start()
    world.node.boot()
    for _boot in range(6):
        world.run(120)
        world.node.cut()
        world.node.nvs.value = None
        world.node.boot()
    world.node.create(5)
    assert world.run_until(lambda: 5 in world.values(), 8000)


def test_a_store_that_was_restored_from_a_backup_declares_what_it_lacks():
    world = _world(11)
    world.gateway.start()
    world.node.boot()
    for value in range(1, 11):
        world.node.create(value)
    assert world.run_until(lambda: _all_there(world, 10), 20000)
    backup = (list(world.gateway.rows), {e: s.copy() for e, s in world.gateway.windows.items()})
    for value in range(11, 31):
        world.node.create(value)
    assert world.run_until(lambda: _all_there(world, 30), 20000)
    world.run(2000)
    world.gateway.kill()
    world.gateway.rows, world.gateway.windows = backup
    world.gateway.start()
    world.node.create(31)
    assert world.run_until(lambda: len(world.values()) == 11 and world.node.journal.held == 0, 30000)
    lost = sum([last - first + 1 for _epoch, first, last in world.gateway.losses])
    assert lost == 20 and world.node.journal.created == len(world.gateway.rows) + lost
