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
