"""Uptime becomes time as soon as the gateway knows both, and never a wrong one."""

from simpang_gateway.clock import VirtualClock
from simpang_gateway.store import Boot
from simpang_gateway.uptimes import EPOCHS_KEPT, Uptimes

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
