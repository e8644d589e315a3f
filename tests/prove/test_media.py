"""Virtual time, losses, wires and air: what the proof stands on."""

from itertools import groupby
from random import Random

import pytest

from simpang.prove.accounts import Accounts, make_record
from simpang.prove.air import BRIDGE_ROOM, Bridge, Channel, air_us
from simpang.prove.events import EventQueue
from simpang.prove.gateway import COMMIT_US, Store
from simpang.prove.losses import Bursts, Losses, make_losses
from simpang.prove.media import SerialChannel, transmission_us
from simpang.prove.nodes import Journal
from simpang.prove.run import Run, Scenario
from simpang.prove.wires import Faults, Wire
from simpang_protocol.cobs import wrap


class Never:
    def strikes(self, at_us: int) -> bool:
        return False


class Always:
    def strikes(self, at_us: int) -> bool:
        return True


def test_events_happen_in_their_order_and_not_after_they_were_cancelled() -> None:
    events = EventQueue()
    told: list[str] = []
    events.at(20, told.append, "c")
    events.at(10, told.append, "a")
    events.at(10, told.append, "b")
    events.at(15, told.append, "never").cancel()
    assert not events.run(15)
    assert (told, events.now_us) == (["a", "b"], 15)
    assert events.run(100, lambda: "c" in told)
    assert events.now_us == 20


def fates(losses: Losses, every_us: int) -> list[bool]:
    return [losses.strikes(number * every_us) for number in range(200_000)]


def mean_run(lost: list[bool]) -> float:
    runs = [len(list(run)) for fate, run in groupby(lost) if fate]
    return sum(runs) / len(runs)


@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize("probability", [0.05, 0.3, 0.6])
def test_losses_have_their_mean_and_bursts_their_length(bursts: bool, probability: float) -> None:
    lost = fates(make_losses(probability, bursts, Random(1), 1000), every_us=1000)
    assert sum(lost) / len(lost) == pytest.approx(probability, abs=0.01)
    assert mean_run(lost) == pytest.approx(4 if bursts else 1 / (1 - probability), rel=0.05)


def test_burst_does_not_wait_for_the_next_frame() -> None:
    lost = fates(Bursts(0.6, Random(1), 1000), every_us=1_000_000)
    assert sum(lost) / len(lost) == pytest.approx(0.6, abs=0.01)
    assert mean_run(lost) == pytest.approx(2.5, rel=0.05)


def test_without_loss_nothing_is_lost() -> None:
    for bursts in (False, True):
        assert not any(fates(make_losses(0.0, bursts, Random(1), 1000), every_us=1000))


def test_bursts_of_four_cannot_make_up_every_loss() -> None:
    with pytest.raises(ValueError, match="runs of 4"):
        Bursts(0.9, Random(1), 1000)


def test_serial_line_takes_ten_bits_a_byte_and_keeps_the_order() -> None:
    events = EventQueue()
    came: list[tuple[int, bytes]] = []
    line = SerialChannel(events, lambda frame: came.append((events.now_us, frame)), Never(), Random(1))
    frames = [bytes((n,)) * 50 for n in (1, 2)]
    for frame in frames:
        line.send(frame)
    events.run(1_000_000)
    size = len(wrap(frames[0]))
    assert came == [
        (transmission_us(size, 115_200), frames[0]),
        (2 * transmission_us(size, 115_200), frames[1]),
    ]
    assert transmission_us(11_520, 115_200) == 1_000_000


def test_lost_frame_is_not_there_or_refused_by_its_checksum() -> None:
    events = EventQueue()
    came: list[bytes] = []
    line = SerialChannel(events, came.append, Always(), Random(1))
    for number in range(200):
        line.send(bytes((number,)) * 60)
    events.run(60_000_000)
    assert came == []
    noticed = line.deframer.bad_crc + line.deframer.bad_cobs + line.deframer.overruns
    assert 50 < noticed < 250


def test_packet_on_the_air_takes_what_the_study_says() -> None:
    # 66 bytes of record with 17 of frame: 400 + 192 + 126 x 8 + 300 us.
    assert air_us(83) == 1900
    events = EventQueue()
    channel = Channel(events, Never())
    came: list[int] = []
    assert channel.send(83, lambda: came.append(events.now_us)) == 1900
    assert channel.send(83, lambda: came.append(events.now_us)) == 3800
    events.run(10_000)
    assert came == [1900, 3800]


def test_bridge_drops_what_its_buffer_does_not_hold() -> None:
    events = EventQueue()
    bridge = Bridge(events, Channel(events, Never()), 115_200)
    came: list[int] = []
    bridge.to_gateway = lambda node, frame: came.append(node)
    for _ in range(BRIDGE_ROOM + 7):
        bridge.heard(1, bytes(83))
    events.run(10_000_000)
    assert (len(came), bridge.dropped_up) == (BRIDGE_ROOM, 7)


def test_bridge_serves_more_nodes_than_it_has_peers() -> None:
    events = EventQueue()
    bridge = Bridge(events, Channel(events, Never()), 921_600)
    came: list[int] = []
    bridge.to_node = lambda node, frame: came.append(node)
    for node in range(50):
        bridge.write(node, bytes(40))
    events.run(10_000_000)
    assert came == list(range(50))
    assert bridge.evicted == 50 - 16


def test_commit_takes_its_time_and_what_comes_meanwhile_is_in_the_next() -> None:
    events = EventQueue()
    store = Store(events, Random(1))
    done: list[tuple[str, int]] = []
    store.submit(lambda: done.append(("a", events.now_us)))
    events.at(1, store.submit, lambda: done.append(("b", events.now_us)))
    events.at(2, store.submit, lambda: done.append(("c", events.now_us)))
    events.run(1_000_000)
    (_, first), (_, second), (_, third) = done
    assert COMMIT_US[0] <= first <= COMMIT_US[1]
    assert COMMIT_US[0] <= second - first <= COMMIT_US[1]
    assert second == third


def test_journal_gives_what_is_held_in_order_and_frees_by_base_and_bits() -> None:
    accounts = Accounts(range(1, 2))
    journal = Journal(1, accounts)
    journal.start_epoch(3)
    for _ in range(6):
        number = accounts.create(1, 0)
        journal.append(make_record(1, number, journal.seq))
    assert journal.start_epoch(5) == 5
    journal.append(make_record(1, accounts.create(1, 0), 0))
    assert journal.floors() == [(3, 0), (5, 0)]
    journal.free(3, 2, 0b101)
    assert journal.held == 3
    assert [entry[:2] for entry in _walk(journal)] == [(3, 2), (3, 4), (5, 0)]
    assert journal.floors() == [(3, 2), (5, 0)]
    journal.free(3, 6, 0)
    assert journal.floors() == [(5, 0)]
    journal.free(5, 9, 0)  # nobody has what was not written
    assert journal.held == 1


def _walk(journal: Journal) -> list[tuple[int, int, bytes]]:
    found = []
    entry = journal.next_after(0, -1)
    while entry is not None:
        found.append(entry)
        entry = journal.next_after(*entry[:2])
    return found


def test_who_talks_into_a_frame_on_the_bus_spoils_both() -> None:
    run = Run(Scenario("rs485", 2, 0.0, backlog=60, steady=0))
    bus = run.medium
    events = run.events

    def shout() -> None:
        bus.transmit(run.nodes[1], bytes(200))  # type: ignore[attr-defined]
        if run.accounts.stored < 120:
            events.after(90_000, shout)

    events.at(0, shout)
    result = run.run()
    assert result.figures["collisions"] > 0
    assert result.retransmissions > 0
    assert result.sound, result


@pytest.mark.parametrize("bytewise", [False, True])
def test_wire_that_reorders_loses_nothing(bytewise: bool, seed: int) -> None:
    events = EventQueue()
    came: list[bytes] = []
    wire = Wire(events, came.append, Faults(reorder=0.3, bytewise=bytewise), Random(seed))
    frames = [number.to_bytes(2, "little") * 20 for number in range(200)]
    at_us = 0
    for frame in frames:
        events.at(at_us, wire.send, frame)
        at_us += 10_000
    events.run(at_us + 1_000_000)
    assert came != frames
    assert sorted(came) == sorted(frames)
