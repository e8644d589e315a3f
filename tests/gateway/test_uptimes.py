"""Uptime becomes time as soon as the gateway knows both, and never a wrong one."""

from typing import Any

from simpang_gateway.clock import VirtualClock
from simpang_gateway.store import Boot, Row
from simpang_gateway.uptimes import EPOCHS_KEPT, TIMES_KEPT, Uptimes

NOW_MS = 1_800_000_000_000


def _boot(number: int, offset_ms: int | None) -> Boot:
    return Boot(number, f"boot-{number}", 0, offset_ms)


def test_uptime_is_unknown_until_the_node_was_heard() -> None:
    uptimes = Uptimes(VirtualClock(NOW_MS))
    uptimes.load(1, {}, {})
    assert uptimes.resolve(1, 5, 10) is None


def test_uptime_of_this_boot_becomes_time() -> None:
    clock = VirtualClock(NOW_MS)
    uptimes = Uptimes(clock)
    uptimes.load(1, {}, {})
    clock.advance(60_000)
    uptimes.heard(1, 5, 60_000 - 20_000)  # the node has been up for 20 s now
    assert uptimes.resolve(1, 5, 20) == ((NOW_MS + 60_000) // 1000, "uptime")
    assert uptimes.resolve(1, 5, 0) == ((NOW_MS + 40_000) // 1000, "uptime")
    assert uptimes.resolve(1, 6, 20) is None
    assert uptimes.resolve(2, 5, 20) is None


def test_uptime_waits_for_the_gateways_clock() -> None:
    clock = VirtualClock(0, synced=False)
    uptimes = Uptimes(clock)
    uptimes.load(1, {}, {})
    uptimes.heard(1, 5, -20_000)
    assert uptimes.resolve(1, 5, 20) is None
    clock.step_wall(NOW_MS)
    clock.set_synced(True)
    assert uptimes.resolve(1, 5, 20) == (NOW_MS // 1000, "uptime")


def test_clock_that_loses_its_source_does_not_take_the_time_along() -> None:
    clock = VirtualClock(NOW_MS)
    uptimes = Uptimes(clock)
    uptimes.load(1, {}, {})
    uptimes.heard(1, 5, 0)
    clock.set_synced(False)
    clock.step_wall(-NOW_MS)
    assert uptimes.resolve(1, 5, 20) == (NOW_MS // 1000 + 20, "uptime")


def test_epoch_of_an_earlier_boot_is_resolved_by_that_boot() -> None:
    uptimes = Uptimes(VirtualClock(0, synced=False))
    uptimes.load(
        3, {(1, 5, 1): 1000, (1, 5, 2): 2000, (1, 6, 2): 0}, {1: _boot(1, NOW_MS), 2: _boot(2, None)}
    )
    assert uptimes.resolve(1, 5, 20) == (NOW_MS // 1000 + 21, "uptime")
    assert uptimes.resolve(1, 6, 20) is None  # that boot never knew the time


def test_offset_of_this_boot_is_found_again_after_a_restart() -> None:
    uptimes = Uptimes(VirtualClock(0, synced=False))
    uptimes.load(2, {(1, 5, 2): 4000}, {2: _boot(2, NOW_MS)})
    assert uptimes.resolve(1, 5, 20) == (NOW_MS // 1000 + 24, "uptime")


def test_store_that_is_loaded_anew_replaces_what_was_known() -> None:
    clock = VirtualClock(NOW_MS)
    uptimes = Uptimes(clock)
    uptimes.load(1, {(1, 5, 1): 0}, {})
    uptimes.load(1, {(1, 6, 1): 0}, {})
    assert uptimes.resolve(1, 5, 20) is None
    assert uptimes.resolve(1, 6, 20) is not None


def test_epochs_in_memory_are_bounded_and_the_newest_stay() -> None:
    uptimes = Uptimes(VirtualClock(NOW_MS))
    uptimes.load(1, {}, {})
    for epoch in range(1, EPOCHS_KEPT + 101):
        uptimes.heard(1, epoch, 0)
    assert uptimes.resolve(1, 100, 0) is None
    assert uptimes.resolve(1, 101, 0) is not None
    assert uptimes.resolve(1, EPOCHS_KEPT + 100, 0) is not None


# ---- bounds


def _row(epoch: int, seq: int, **changes: Any) -> Row:
    values = {"wall_ms": NOW_MS, "boot": 1, "up_ms": 60_000, "synced": True, **changes}
    return Row(seq + 1, 1, epoch, seq, 1, body=b"", **values)


def test_record_is_not_newer_than_its_receipt() -> None:
    uptimes = Uptimes(VirtualClock(0, synced=False))
    uptimes.load(3, {}, {1: _boot(1, NOW_MS - 50_000), 2: _boot(2, None)})
    assert uptimes.bounds(_row(5, 0)) == (None, NOW_MS // 1000)
    # Received without a known time, in a boot whose time became known.
    assert uptimes.bounds(_row(5, 0, wall_ms=7, synced=False)) == (None, (NOW_MS + 10_000) // 1000)
    for boot in (2, 3, 9):
        assert uptimes.bounds(_row(5, 0, wall_ms=7, boot=boot, synced=False)) is None


def test_time_of_receipt_becomes_known_with_the_gateways_clock() -> None:
    clock = VirtualClock(0, synced=False)
    uptimes = Uptimes(clock)
    uptimes.load(1, {}, {})
    clock.advance(100_000)
    assert uptimes.bounds(_row(5, 0, wall_ms=7, synced=False)) is None
    clock.step_wall(NOW_MS)
    clock.set_synced(True)
    assert uptimes.bounds(_row(5, 0, wall_ms=7, synced=False)) == (None, (NOW_MS + 60_000) // 1000)


def test_record_is_not_older_than_what_is_known_before_it() -> None:
    uptimes = Uptimes(VirtualClock(NOW_MS))
    uptimes.load(1, {}, {})
    now_s = NOW_MS // 1000
    for epoch, seq, unix_s in ((4, 9, now_s - 500), (4, 3, now_s - 900), (6, 0, now_s - 10)):
        uptimes.note_time(_row(epoch, seq), unix_s)
    assert uptimes.bounds(_row(5, 0)) == (now_s - 500, now_s)
    assert uptimes.bounds(_row(4, 10)) == (now_s - 500, now_s)
    assert uptimes.bounds(_row(4, 5)) == (None, now_s)
    assert uptimes.bounds(_row(6, 1)) == (now_s - 10, now_s)
    assert uptimes.bounds(_row(3, 0)) == (None, now_s)


def test_record_is_not_older_than_the_beginning_of_an_epoch_before_it() -> None:
    uptimes = Uptimes(VirtualClock(NOW_MS))
    uptimes.load(1, {(1, 4, 1): -40_000}, {1: _boot(1, NOW_MS)})
    assert uptimes.bounds(_row(5, 0)) == (NOW_MS // 1000 - 40, NOW_MS // 1000)
    assert uptimes.bounds(_row(4, 0)) == (None, NOW_MS // 1000)


def test_bounds_that_contradict_each_other_keep_the_gateways() -> None:
    uptimes = Uptimes(VirtualClock(NOW_MS))
    uptimes.load(1, {}, {})
    uptimes.note_time(_row(4, 0), NOW_MS // 1000 + 60)
    assert uptimes.bounds(_row(5, 0)) == (None, NOW_MS // 1000)


def test_known_times_in_memory_are_bounded_and_the_newest_stay() -> None:
    uptimes = Uptimes(VirtualClock(NOW_MS))
    uptimes.load(1, {}, {})
    for epoch in range(1, 1001):
        uptimes.note_time(_row(epoch, 0), epoch)
    assert len(uptimes._times[1]) == TIMES_KEPT
    assert uptimes.bounds(_row(2000, 0)) == (1000, NOW_MS // 1000)
