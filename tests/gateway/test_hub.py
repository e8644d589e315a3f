"""The hub between lines, sessions and store: what is refused, what is acknowledged, and when."""

from collections.abc import Callable
from typing import Any

import pytest

from simpang.rig.softnode import SoftNode
from simpang_gateway.answers import SILENCE_MS
from simpang_gateway.hub import Hub
from simpang_gateway.keystore import Node, Revocation
from simpang_gateway.outside import Outside
from simpang_protocol import burst, record, schema
from simpang_protocol import frame as frames
from simpang_protocol.ccm import Ccm
from simpang_protocol.cobs import wrap
from simpang_protocol.frame import parse_header
from tests.gateway.hubworld import Disk, FakeLine, World, run_world

# ---- what is acknowledged


def test_record_is_acknowledged_after_the_commit_and_not_before() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(5)
        world.up()
        await world.passes(1000)
        assert world.line.out == []
        assert world.node.journal.held == 1
        world.disk.commit()
        assert world.kinds() == [frames.ACK]
        world.down()
        assert world.node.journal.held == 0
        assert list(world.disk.values()) == [5]

    run_world(test)


def test_failed_commit_acknowledges_nothing_and_the_next_one_stores_once() -> None:
    async def test(world: World) -> None:
        await world.greet()
        for value in range(5):
            world.node.create(value)
        world.up()
        world.disk.fail()
        assert world.line.out == []
        assert world.hub.counters["not_committed"] == 5
        await world.settle()
        assert sorted(world.disk.values()) == [0, 1, 2, 3, 4]
        assert len(world.disk.rows) == 5

    run_world(test)


def test_end_of_a_burst_that_was_lost_is_answered_after_silence() -> None:
    async def test(world: World) -> None:
        await world.greet()
        for value in range(3):
            world.node.create(value)
        # The last frame asks for the acknowledgement: it is the one that gets lost.
        world.node.drops = lambda frame: parse_header(frame).ack_requested
        world.up()
        world.disk.commit()
        await world.passes(SILENCE_MS - 1)
        assert world.line.out == []
        await world.passes(2)
        assert world.kinds() == [frames.ACK]
        world.down()
        assert world.node.journal.held == 1

    run_world(test)


def test_silence_counts_from_the_last_frame_even_if_the_commit_takes_longer() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.node.create(2)
        world.node.drops = lambda frame: parse_header(frame).ack_requested
        world.up()
        await world.passes(SILENCE_MS + 1)
        assert world.line.out == []
        world.disk.commit()
        assert world.kinds() == [frames.ACK]

    run_world(test)


def test_line_that_closes_during_the_commit_gets_no_answer_and_nothing_is_lost() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.up()
        world.hub.line_closed(world.line)
        world.disk.commit()
        assert world.line.out == []
        world.hub.line_opened(world.line)
        await world.settle()
        assert len(world.disk.rows) == 1
        assert world.hub.counters["duplicate"] == 1

    run_world(test)


def test_full_queue_takes_nothing_and_loses_nothing() -> None:
    async def test(world: World) -> None:
        await world.greet()
        for value in range(4):
            world.node.create(value)
        first = world.node.poll(world.now_ms())
        assert first is not None
        world.hub.frame(world.line, first)
        world.disk.full = 1
        world.up()
        # One part is on its way to the disk, the second found no room, the others came too early to count.
        assert len(world.disk.waiting) == 1
        assert world.hub.counters["store_busy"] == 1
        assert world.hub.counters["not_storing"] == 2
        world.disk.commit()
        await world.settle()
        assert sorted(world.disk.values()) == [0, 1, 2, 3]
        assert len(world.disk.rows) == 4

    run_world(test)


def test_write_that_was_reported_as_failed_and_is_there_is_not_stored_twice() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.up()
        # As the store does it: the event comes before the answers, and recovery opens the file anew.
        world.hub.suspend()
        world.disk.fail(written=1)
        await world.passes(2000)
        world.up()
        assert world.hub.counters["not_storing"] == 1
        world.hub.resume(world.disk.stored())
        await world.settle()
        assert len(world.disk.rows) == 1

    run_world(test)


def test_hello_is_answered_while_the_store_fails() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.hub.suspend()
        world.node.cut()
        world.node.boot(world.now_ms())
        world.up()
        assert world.kinds() == [frames.HELLO]
        world.down()
        assert world.node.link.greeted
        assert world.node.time is not None

    run_world(test)


def test_node_without_epoch_waits_until_its_epoch_is_on_record() -> None:
    async def test(world: World) -> None:
        world.node.boot(0)
        world.up()
        world.down()  # the gateway asks back
        world.hub.suspend()
        world.up()
        assert world.line.out == []
        assert world.disk.waiting == []
        world.hub.resume()
        await world.passes(1300)
        for _ in range(2):
            world.up()
            world.down()
        assert world.kinds() == []
        world.disk.commit()
        assert world.kinds() == [frames.HELLO]
        await world.settle()
        assert world.node.link.epoch in {epoch for _, epoch in world.disk.windows}

    run_world(test)


def test_repeated_hello_brings_out_no_answer_that_is_not_on_record() -> None:
    async def test(world: World) -> None:
        world.node.boot(0)
        world.up()
        world.down()
        world.up()
        assert world.line.out == []
        world.disk.fail()
        world.hub.frame(world.line, world.node.sent[-1])
        assert frames.HELLO not in world.kinds()
        await world.settle()

    run_world(test)


def test_epoch_whose_commit_failed_is_granted_at_once() -> None:
    async def test(world: World) -> None:
        await world.greet()
        await world.passes(20_000)
        world.node.cut()
        world.node.boot(world.now_ms())
        world.up()
        world.down()
        world.node.create(1)
        world.up()
        world.disk.fail()
        await world.passes(1300)
        world.up()
        assert world.hub.counters["epoch_rate"] == 0
        assert world.disk.waiting

    run_world(test, epoch_every_ms=10_000)


def test_downlink_is_taken_once_however_often_the_node_is_greeted() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        taken = [frame for frame in world.node.received if parse_header(frame).kind == frames.ACK]
        session = world.hub._peers[1].session
        assert session is not None
        await world.passes(2000)
        solicit = session.solicit(world.now_ms())
        assert solicit is not None
        world.node.take(wrap(solicit), world.now_ms())
        world.up()
        world.down()
        assert world.node.counters["greeted"] == 2
        acks = world.node.counters["acks"]
        for frame in taken:
            world.node.take(wrap(frame), world.now_ms())
        assert world.node.counters["acks"] == acks

    run_world(test)


def test_gap_from_before_this_store_is_no_loss_whatever_comes_first() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(0)
        await world.settle()
        for value in range(1, 40):
            world.node.create(value)
        world.disk = Disk()
        world.start()
        await world.settle()
        assert [(loss.first, loss.last, loss.cause) for loss in world.disk.losses] == [(0, 0, "before_store")]

    run_world(test)


def test_event_and_first_epoch_are_committed_at_once() -> None:
    async def test(world: World) -> None:
        world.node.boot(0)
        world.up()
        world.down()
        world.up()
        assert world.disk.urgent
        await world.settle()
        world.disk.urgent = False
        world.node.create(1)
        world.up()
        assert not world.disk.urgent
        await world.settle()
        row = (1, 1, 0, 0)
        journal = world.node.journal
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row]))
        world.up()
        assert world.disk.urgent

    run_world(test)


def test_unknown_schema_is_stored_and_acknowledged() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1, number=77)
        world.node.create(2)
        await world.settle()
        assert [body[0] for *_, body in world.disk.rows] == [77, schema.HEALTH.number]

    run_world(test)


def test_late_record_leaves_the_ledger_and_is_stored_once() -> None:
    async def test(world: World) -> None:
        await world.greet()
        epoch = world.node.link.epoch or 0
        floor = burst.build_burst_head(None, [(epoch, 5)])
        world.hub.frame(world.line, _sealed(world.node, floor, 900, kind=frames.EMPTY))
        world.disk.commit()
        assert [(loss.first, loss.last) for loss in world.disk.losses] == [(0, 4)]
        late = record.build(schema.HEALTH, 2, record.UPTIME, 0, 0, [(7, *[None] * 9)])
        for counter in (901, 902):
            world.hub.frame(world.line, _sealed(world.node, late, counter))
            world.disk.commit()
        assert [(loss.first, loss.last) for loss in world.disk.losses] == [(0, 1), (3, 4)]
        assert world.disk.values() == {7: [(1, epoch, 2)]}
        assert world.hub.counters["duplicate"] == 1

    run_world(test)


def test_ceiling_at_the_birth_of_a_store_is_kept_with_the_first_commit() -> None:
    async def test(world: World) -> None:
        world.keys.entries[1] = Node("place", 1, None, 3072, "")
        await world.greet()
        assert world.disk.births == {1: 3072}
        assert world.keys.ceiling(1) > 3072
        world.start()
        world.node.create(1)
        await world.settle()
        assert world.disk.births == {1: 3072}

    run_world(test)


def test_rows_and_uptimes_are_told_after_the_commit() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.rows_told.clear()
        await world.passes(60_000)
        world.node.create(1)
        world.node.create(2)
        world.up()
        assert world.rows_told == []
        await world.settle()
        assert max(world.rows_told) == 2
        number, epoch, offset_ms = world.uptimes[-1]
        assert (number, epoch) == (1, world.node.link.epoch)
        assert abs(offset_ms) < 1000  # node and gateway began at the same moment

    run_world(test, synced=False)


# ---- what is refused


def _sealed(node: SoftNode, plain: bytes, counter: int, **header: Any) -> bytes:
    epoch = node.link.epoch
    assert epoch is not None
    number = header.pop("number", node.number)
    mic = header.get("mic", 8)
    kind = header.pop("kind", frames.DATA)
    raw = frames.build_header(frames.UP, kind, number, epoch, counter, node.generation, **header)
    return frames.seal(Ccm(node.keys["up"], mic), raw, plain)


def _changed(frame: bytes, at: int, mask: int) -> bytes:
    out = bytearray(frame)
    out[at] ^= mask
    return bytes(out)


HOSTILE: dict[str, Callable[[World], bytes]] = {
    "bad_mic": lambda world: _changed(_sealed(world.node, b"", 900), -1, 1),
    "replay": lambda world: world.node.sent[-1],
    "unknown_node": lambda world: _sealed(world.node, b"", 900, number=99),
    "mic_length": lambda world: _sealed(world.node, b"", 900, mic=4),
    "generation": lambda world: _changed(_sealed(world.node, b"", 900), 1, 0x80),
    "reserved": lambda world: _changed(_sealed(world.node, b"", 900), 1, 1),
    "version": lambda world: _changed(_sealed(world.node, b"", 900), 0, 0x40),
    "direction": lambda world: _changed(_sealed(world.node, b"", 900), 0, 0x10),
    "type": lambda world: _changed(_sealed(world.node, b"", 900), 0, frames.DATA ^ 7),
    "short": lambda world: b"\x21\x00",
    "hello_mac": lambda world: _changed(
        next(frame for frame in world.node.sent if parse_header(frame).kind == frames.HELLO), -1, 1
    ),
    "old_epoch": lambda world: _changed(_sealed(world.node, b"", 900), 6, 1),
}


@pytest.mark.parametrize("cause", HOSTILE)
def test_hostile_frame_is_counted_by_cause_and_changes_nothing(cause: str) -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        rows, windows = list(world.disk.rows), dict(world.disk.windows)
        world.line.take()
        world.hub.frame(world.line, HOSTILE[cause](world))
        assert world.hub.counters[cause] == 1
        assert world.refused[-1][:2] == ("line1", cause)
        assert (world.disk.waiting, world.line.out) == ([], [])
        await world.passes(1000)
        assert (world.disk.rows, world.disk.windows, world.line.out) == (rows, windows, [])
        world.node.create(2)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2]

    run_world(test)


def test_revoked_node_is_refused_and_not_solicited() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        world.keys.bans[1] = Revocation("2026-01-01T00:00:00Z", "stolen")
        world.start()
        assert world.line.out == []
        world.node.create(2)
        world.up()
        assert world.hub.counters["revoked_node"] == 1
        assert world.line.out == []
        assert world.hub.status()[0]["revoked"] is True

    run_world(test)


def test_replay_on_another_line_teaches_no_way() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        stranger = FakeLine("line2")
        world.hub.line_opened(stranger)
        for frame in world.node.sent:
            world.hub.frame(stranger, frame)
        world.disk.commit()
        assert frames.ACK not in [parse_header(frame).kind for frame in stranger.out]
        world.node.create(2)
        world.up()
        world.disk.commit()
        assert world.kinds() == [frames.ACK]
        assert world.hub.status()[0]["port"] == "line1"

    run_world(test)


def test_epoch_that_cannot_be_registered_is_not_adopted() -> None:
    async def test(world: World) -> None:
        world.keys.entries[1] = Node("place", 1, None, 5, "")
        world.node.epochs.value = 1023
        world.keys.broken = True
        world.node.boot(0)
        world.node.create(1)
        world.up()
        world.down()
        world.up()
        assert world.hub.counters["registry.unwritable"] >= 1
        assert world.registry == ["registry.unwritable"] * len(world.registry)
        assert world.disk.waiting == []
        world.keys.broken = False
        await world.settle()
        assert world.registry[-1] is None
        assert world.keys.ceiling(1) == 1024
        assert len(world.disk.rows) == 1

    run_world(test)


def test_drop_event_beyond_every_seq_does_not_bring_the_gateway_down() -> None:
    async def test(world: World) -> None:
        await world.greet()
        lost = record.lost_range_item(world.node.link.epoch or 0, 0, 0xFFFF, 1)
        row = (2, 1, 0, 0)
        journal = world.node.journal
        journal.append(record.build(schema.EVENT, journal.seq, record.UPTIME, 0, 0, [row], [lost]))
        for _ in range(3):
            world.up()
            world.disk.commit()
            world.down()
            await world.passes(2000)
        # Its session may be stuck, as it asked for; another node and another epoch are not.
        world.node.cut()
        world.node.boot(world.now_ms())
        world.node.journal._entries.clear()
        world.node.create(7)
        await world.settle()
        assert 7 in world.disk.values()

    run_world(test)


# ---- starts


def test_node_known_from_the_store_is_solicited_at_once() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        world.start()
        assert world.kinds() == [frames.SOLICIT]
        world.node.create(2)
        await world.settle()
        assert sorted(world.disk.values()) == [1, 2]

    run_world(test)


def test_node_is_solicited_too_if_the_line_opens_before_the_store() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        await world.settle()
        outside = Outside(
            world.disk.submit, world.rows_told.append, lambda *told: None, world.disk.load_window
        )
        late = Hub(world.keys, world.clock, outside)  # type: ignore[arg-type]
        world.line.take()
        late.line_opened(world.line)
        assert world.line.out == []
        late.resume(world.disk.stored())
        assert world.kinds() == [frames.SOLICIT]
        late.close()

    run_world(test)


def test_no_timer_is_left_after_close() -> None:
    async def test(world: World) -> None:
        await world.greet()
        world.node.create(1)
        world.node.create(2)
        world.node.drops = lambda frame: parse_header(frame).ack_requested
        world.up()
        world.hub.close()
        world.disk.commit()
        world.line.take()
        await world.passes(1000)
        assert world.line.out == []

    run_world(test)


def test_status_has_the_same_keys_for_every_node() -> None:
    async def test(world: World) -> None:
        world.keys.entries[2] = Node("unheard", 1, None, 0, "")
        await world.greet()
        world.node.create(1)
        await world.settle()
        await world.passes(5000)
        heard, unheard = world.hub.status()
        assert heard.keys() == unheard.keys()
        assert (unheard["heard"], unheard["silent_s"], unheard["port"]) == (None, None, None)
        assert heard["silent_s"] >= 5
        assert heard["heard"] == pytest.approx(world.clock.wall_ms() / 1000 - heard["silent_s"], abs=0.1)
        world.clock.set_synced(False)
        assert world.hub.status()[0]["heard"] is None
        assert world.hub.status()[0]["silent_s"] == heard["silent_s"]

    run_world(test)
