"""What stands retained at the broker."""

from __future__ import annotations

from simpang_gateway.uplink.retained import Retained


def test_new_connection_sends_everything_in_the_order_in_which_it_was_wanted() -> None:
    retained = Retained()
    retained.set("status", b"online")
    retained.set("meta", b"{}")
    assert [retained.take(), retained.take()] == [("status", b"online"), ("meta", b"{}")]
    assert retained.take() is None
    retained.set("status", b"online")
    assert retained.take() == ("status", b"online")
    assert not retained.waiting
    retained.send_all_again()
    assert [retained.take(), retained.take()] == [("status", b"online"), ("meta", b"{}")]


def test_message_that_ends_the_connection_twice_is_left_out_until_it_changes() -> None:
    retained = Retained()
    retained.set("meta", b"large")
    assert [retained.lost_alone("meta"), retained.lost_alone("meta")] == [False, True]
    retained.send_all_again()
    assert retained.take() is None
    assert retained.any_refused
    retained.set("meta", b"large")
    assert retained.take() is None
    retained.set("meta", b"small")
    assert retained.take() == ("meta", b"small")
    retained.send_all_again()
    assert not retained.any_refused


def test_message_left_out_is_tried_again_after_some_connections() -> None:
    retained = Retained()
    retained.set("meta", b"large")
    retained.lost_alone("meta")
    retained.lost_alone("meta")
    tried = []
    for connection in range(40):
        retained.send_all_again()
        if retained.take() is not None:
            tried.append(connection)
            assert retained.lost_alone("meta")
    assert tried == [16, 33]


def test_answer_of_the_broker_clears_the_suspicion() -> None:
    retained = Retained()
    retained.set("meta", b"{}")
    retained.lost_alone("meta")
    retained.acked("meta")
    assert not retained.lost_alone("meta")


def test_refusal_is_new_once_in_a_connection() -> None:
    retained = Retained()
    retained.set("meta", b"{}")
    assert [retained.refused("meta"), retained.refused("meta")] == [True, False]
    assert retained.any_refused
    retained.send_all_again()
    assert retained.refused("meta")


def test_clearing_is_repeated_for_an_hour_and_again_after_the_alarm_has_stood() -> None:
    def sent(now_s: float) -> list[bytes]:
        retained.send_all_again(now_s)
        found = []
        while (one := retained.take()) is not None:
            found.append(one[1])
            retained.acked(one[0], now_s)
        return found

    retained = Retained()
    retained.set("alarm", b"")
    assert [sent(now_s) for now_s in (0.0, 60.0, 3599.0, 3600.0, 9000.0)] == [[b""], [b""], [b""], [], []]
    retained.set("alarm", b"{}")
    assert [sent(now_s) for now_s in (9001.0, 99_000.0)] == [[b"{}"], [b"{}"]]
    retained.set("alarm", b"")
    assert [sent(now_s) for now_s in (99_001.0, 99_002.0, 110_000.0)] == [[b""], [b""], []]


def test_clearing_that_was_refused_is_repeated() -> None:
    retained = Retained()
    retained.set("alarm", b"")
    retained.send_all_again(0.0)
    retained.take()
    retained.acked("alarm", 0.0, taken=False)
    retained.send_all_again(9000.0)
    assert retained.take() == ("alarm", b"")
