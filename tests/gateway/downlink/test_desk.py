"""Who may give what, once, in time: the desk in virtual time."""

import json
from dataclasses import replace
from typing import Any

import pytest

from simpang_gateway.downlink import book as books
from simpang_gateway.downlink import desk as desks
from simpang_gateway.downlink.book import MEMORY, NODE_QUEUE, SHOWN, Book, Damaged
from simpang_gateway.downlink.envelope import pack
from simpang_gateway.messages import MESSAGES
from simpang_protocol import codes
from tests.gateway.downlink.kit import GATEWAY, START_S, City, Signer, order

DAY_S = 86_400


# ---- accepted


def test_signed_command_is_accepted_and_handed_out_once() -> None:
    city = City()
    taken = city.give("c1", "node.identify", data=30)
    assert taken.accepted and taken.tell and taken.refusal is None
    assert taken.ticket is not None
    assert (taken.ticket.state, taken.ticket.uplink, taken.ticket.key) == ("queued", "city", "ops")
    assert city.handed_out() == ["c1"]
    assert city.handed_out() == []


def test_commands_of_one_node_come_one_after_the_other() -> None:
    city = City()
    for id, node in (("a", 1), ("b", 1), ("c", 2)):
        city.give(id, node=node)
    city.give("g", "gateway.status")
    assert [t.id for t in city.deliver()] == ["a", "c", "g"]
    assert city.deliver() == []
    assert city.desk.result(1, 1, codes.DONE, "", city.now) is not None
    assert [t.id for t in city.deliver()] == ["b"]


@pytest.mark.parametrize(
    ("outcome", "state", "word"),
    [
        (codes.DONE, "done", "done"),
        (codes.REFUSED, "refused", "refused"),
        (codes.UNKNOWN_OP, "refused", "unknown_op"),
        (codes.FAILED, "failed", "failed"),
        (codes.INTERRUPTED, "failed", "interrupted"),
        (99, "failed", "outcome-99"),
    ],
)
def test_answer_of_the_node_is_the_end(outcome: int, state: str, word: str) -> None:
    city = City()
    city.give()
    (ticket,) = city.deliver()
    assert ticket.state == "sent"
    assert city.desk.result(7, 99, outcome, "", city.now) is None
    city.clock.advance(3000)
    assert city.desk.result(7, 1, outcome, "why", city.now) is ticket
    assert (ticket.state, ticket.outcome, ticket.text) == (state, word, "why")
    assert ticket.changed == START_S + 3
    assert city.desk.result(7, 1, codes.FAILED, "", city.now) is None


# ---- strangers


def test_configuration_on_trial_is_pending_until_the_node_says_how_it_ended() -> None:
    for outcome, state in ((codes.DONE, "done"), (codes.ROLLED_BACK, "failed")):
        city = City()
        city.give("a", "node.configure", data={"led": 2})
        city.give("b", "node.health")
        ticket = city.desk.book.tickets["a"]
        ticket.number = 1
        assert [t.id for t in city.desk.ready(city.now)] == ["a"]
        assert city.desk.result(7, 1, codes.PART, "1", city.now) is None and ticket.outcome is None
        assert city.desk.result(7, 1, codes.TRIAL, "", city.now) is ticket
        assert (ticket.state, ticket.outcome, ticket.pending) == ("trial", "trial", True)
        assert city.desk.result(7, 1, codes.TRIAL, "", city.now) is None
        # The next has to wait, also over a restart of the gateway, which asks again.
        assert list(city.desk.ready(city.now)) == []
        city.restart()
        assert [t.id for t in city.desk.ready(city.now)] == ["a"]
        ticket = city.desk.book.tickets["a"]
        assert city.desk.result(7, 1, outcome, "why", city.now) is ticket
        assert (ticket.state, ticket.outcome, ticket.text) == (state, codes.OUTCOMES[outcome], "why")
        # It is said twice where a power cut came in between.
        assert city.desk.result(7, 1, outcome, "why", city.now) is None
        assert [t.id for t in city.desk.ready(city.now)] == ["b"]


def test_findings_become_the_result_of_a_self_test_and_are_bounded() -> None:
    city = City()
    city.give("a", "node.selftest")
    ticket = city.desk.book.tickets["a"]
    ticket.number = 1
    city.desk.finding(7, 2, 0, "another")
    city.desk.finding(7, 1, 0 << 16 | 1 << 8 | codes.FAIL, "silent")
    city.desk.finding(7, 1, 99 << 16 | 99, "new")
    assert ticket.result == {
        "parts": [
            {"part": "sensor", "number": 1, "result": "fail", "text": "silent"},
            {"part": "part-99", "number": 0, "result": "unknown", "text": "new"},
        ]
    }
    for _ in range(100):
        city.desk.finding(7, 1, 1 << 16, "")
    assert len(ticket.result["parts"]) == desks.FINDINGS
    city.desk.result(7, 1, codes.DONE, "", city.now)
    assert ticket.to_state()["result"] == ticket.result
    city.restart()
    assert city.desk.book.tickets["a"].result == ticket.result


def test_stranger_is_told_nothing() -> None:
    city = City()
    stranger = Signer("ops", seed=99)
    for data, code in (
        (stranger.sign(order()), "command.signature"),
        (Signer("nobody").sign(order()), "command.unknown_key"),
        (pack("ops", order().to_payload(), bytes(64)), "command.signature"),
        (order().to_payload(), "command.malformed"),
        (b"x" * 5000, "command.too_large"),
    ):
        taken = city.take(data)
        assert taken.refusal is not None and taken.refusal.code == code
        assert taken.ticket is None and not taken.tell
        assert city.desk.counters[code] >= 1
    assert city.desk.book.tickets == {} and city.handed_out() == []


def test_flood_of_forgeries_costs_bounded_work_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def verify(*arguments: bytes) -> bool:
        checked.append(1)
        return False

    city = City()
    monkeypatch.setattr(desks, "verify", verify)
    forged = Signer("ops", seed=9).sign(order())
    for _ in range(5000):
        city.take(forged)
    assert len(checked) == desks.VERIFY_PER_MINUTE
    assert city.desk.counters["command.flood"] == 5000 - desks.VERIFY_PER_MINUTE
    monkeypatch.undo()
    assert city.refusal("c1") == "command.flood"
    city.clock.advance(1000)
    assert city.give("c1").accepted


# ---- refused, and told so


@pytest.mark.parametrize(
    ("arguments", "more", "code"),
    [
        (("c1",), {"site": "demak-1"}, "command.wrong_gateway"),
        (("c1",), {"gateway": "gw-2"}, "command.wrong_gateway"),
        (("c1",), {"issued": START_S - 90, "expires": START_S}, "command.expired"),
        (("c1",), {"issued": START_S + 61, "expires": START_S + 90}, "command.early"),
        (("c1",), {"expires": START_S + DAY_S + 1}, "command.span"),
        (("c1",), {"issued": START_S + 50, "expires": START_S + 50}, "command.span"),
        (("c1",), {"issued": START_S + 50, "expires": START_S + 40}, "command.span"),
        (("c1",), {"issued": START_S - 1}, "command.before"),
        (("c1", "node.dance"), {}, "command.not_allowed"),
        (("c1",), {"node": 10}, "node.unknown"),
        (("c1",), {"node": None}, "command.data"),
        (("c1", "gateway.status"), {"node": 1}, "command.data"),
        (("c1", "gateway.status"), {"data": 1}, "command.data"),
        (("c1", "node.rekey"), {"data": 1}, "command.data"),
        (("c1", "node.identify"), {"data": 0}, "node.command"),
        (("c1", "node.configure"), {"data": [1]}, "node.command"),
        (("c1", "gateway.replay"), {}, "command.data"),
        (("c1", "gateway.replay"), {"data": {"from": 2, "to": 1}}, "command.data"),
        (("c1", "gateway.replay"), {"data": {"from": 1, "to": 2, "node": "7"}}, "command.data"),
        (("c1", "gateway.replay"), {"data": {"from": 1, "to": True}}, "command.data"),
        (("c1", "gateway.replay"), {"data": {"from": 1, "to": 2, "uplink": "x"}}, "command.data"),
    ],
)
def test_signed_command_that_is_refused_is_answered(
    arguments: tuple[str, ...], more: dict[str, Any], code: str
) -> None:
    city = City()
    taken = city.give(*arguments, **more)
    assert taken.refusal is not None and taken.refusal.code == code
    assert taken.tell and taken.ticket is not None and not taken.accepted
    assert taken.ticket.state == ("expired" if code == "command.expired" else "refused")
    assert (taken.ticket.code, taken.ticket.id) == (code, "c1")
    assert city.handed_out() == []
    texts = MESSAGES[code]
    assert texts.arguments() <= {"id", *taken.refusal.arguments}
    assert "?" not in texts.cause("en", {"id": taken.refusal.id, **taken.refusal.arguments})


def test_limits_of_time_are_exact() -> None:
    city = City()
    assert city.give("a", issued=START_S + 60, expires=START_S + 61).accepted
    assert city.give("b", expires=START_S + DAY_S).accepted
    assert city.give("c", expires=START_S + 1).accepted


def test_signed_text_that_cannot_be_read_is_answered_by_its_id_alone() -> None:
    city = City()
    taken = city.take(city.signer.seal(b'{"id":"c9","site":5}'))
    assert taken.ticket is not None and (taken.ticket.id, taken.ticket.code) == ("c9", "command.malformed")
    taken = city.take(city.signer.seal(b'{"id":"c/9"}'))
    assert taken.refusal is not None and taken.ticket is None
    # Nor can it cover the state of a command that exists.
    city.give("c1")
    assert city.take(city.signer.seal(b'{"id":"c1","site":5}')).ticket is None


def test_without_a_clock_nothing_is_carried_out() -> None:
    city = City()
    city.clock.set_synced(False)
    assert city.refusal() == "command.clock"
    city.clock.set_synced(True)
    assert city.give().accepted


def test_a_gateway_that_never_knew_the_time_accepts_nothing() -> None:
    city = City()
    city.clock.set_synced(False)
    city.desk = city.open(Book())
    assert city.refusal() == "command.clock"
    city.clock.advance(10_000)
    city.clock.set_synced(True)
    city.desk.tidy(city.now)
    assert city.refusal("c1", issued=START_S + 9) == "command.before"
    assert city.give("c2").accepted


# ---- allow-lists


def test_both_lists_must_allow_a_command() -> None:
    city = City(key={"allow": frozenset({"node.health", "node.rekey"})}, allow=frozenset({"node.health"}))
    assert city.give("a").accepted
    taken = city.give("b", "node.rekey")
    assert taken.refusal is not None and taken.refusal.arguments["where"] == "[commands] allow"
    taken = city.give("c", "node.identify", data=5)
    assert taken.refusal is not None and taken.refusal.arguments["where"] == "[[command_key]] ops allow"


def test_key_for_some_nodes_reaches_no_other() -> None:
    city = City(key={"nodes": frozenset({3})})
    span = {"from": 1, "to": 2}
    assert city.give("a", node=3).accepted
    assert city.refusal("b", node=4) == "command.not_allowed"
    assert city.refusal("c", "gateway.replay", data=span) == "command.not_allowed"
    assert city.refusal("d", "gateway.replay", data={**span, "node": 4}) == "command.not_allowed"
    assert city.give("e", "gateway.replay", data={**span, "node": 3}).accepted
    assert city.give("f", "gateway.status").accepted


def test_refusal_is_final_although_the_lists_change() -> None:
    city = City(allow=frozenset({"gateway.status"}))
    data = city.signer.sign(order("c1"))
    assert city.take(data).refusal is not None
    city.rules = replace(city.rules, allow=frozenset({"node.health"}))
    city.restart()
    taken = city.take(data)
    assert not taken.accepted and taken.ticket is not None and taken.ticket.state == "refused"
    assert city.handed_out() == []


def test_waiting_command_of_a_key_that_was_taken_away_is_not_carried_out() -> None:
    city = City(signers=2)
    city.give("a", node=1)
    city.give("b", node=2)
    city.deliver()
    city.desk.result(2, 2, codes.DONE, "", city.now)
    city.give("c", node=1)
    city.rules = replace(city.rules, keys={k: v for k, v in city.rules.keys.items() if k != "ops"})
    city.restart()
    # The one that was sent may have been done: its answer is still waited for.
    assert [(t.id, t.state, t.code) for t in city.ended] == [("c", "refused", "command.not_allowed")]
    assert city.handed_out() == ["a"]


# ---- once


def test_copy_is_told_the_state_and_carried_out_never() -> None:
    city = City()
    data = city.signer.sign(order())
    assert city.take(data).accepted
    city.deliver()
    for _ in range(50):
        taken = city.take(data)
        assert not taken.accepted and taken.refusal is None
    assert city.desk.counters["repeated"] == 50 and city.handed_out() == []
    # However many come, the state is told once in a while.
    city.clock.advance(desks.REPEAT_MS)
    told = [city.take(data).tell for _ in range(50)]
    assert sum(told) == 1


@pytest.mark.parametrize("after", ["at once", "sent", "done"])
def test_copy_after_a_restart_is_never_carried_out_again(after: str) -> None:
    city = City()
    data = city.signer.sign(order())
    city.take(data)
    if after != "at once":
        city.deliver()
        if after == "done":
            city.desk.result(7, 1, codes.DONE, "", city.now)
    for _ in range(3):
        city.restart()
        assert not city.take(data).accepted
    handed_out = list(city.desk.ready(city.now))
    if after == "done":
        assert handed_out == []
    else:
        # It goes on under the number that the node knows, and a node carries a number out once.
        assert [t.id for t in handed_out] == ["c1"]
        assert handed_out[0].number == (1 if after == "sent" else None)


def test_id_that_was_used_for_another_command_is_refused() -> None:
    city = City()
    city.give("c1")
    taken = city.give("c1", "node.restart")
    assert taken.refusal is not None and taken.refusal.code == "command.id_used"
    # What is told is the state of the first one, which its digest proves.
    assert taken.ticket is not None and taken.ticket.command == "node.health"
    assert city.handed_out() == ["c1"]


def test_copy_of_what_was_forgotten_is_refused_even_if_the_clock_goes_back() -> None:
    city = City()
    data = city.signer.sign(order("first", expires=START_S + 3600))
    city.take(data)
    city.deliver()
    city.desk.result(7, 1, codes.DONE, "", city.now)
    city.clock.advance(3_600_000)
    for number in range(SHOWN + 1):
        city.give(f"n{number}", "node.health", node=1 + number % 9)
        for ticket in city.deliver():
            assert ticket.node is not None and ticket.number is not None
            city.desk.result(ticket.node, ticket.number, codes.DONE, "", city.now)
        city.clock.advance(61_000)
    city.desk.tidy(city.now)
    assert "first" not in city.desk.book.tickets
    assert city.take(data).refusal is not None
    city.clock.step_wall(START_S * 1000 - city.clock.wall_ms() + 5000)
    city.restart()
    taken = city.take(data)
    assert taken.refusal is not None and taken.refusal.code == "command.expired"


def test_lost_file_lets_no_old_command_in() -> None:
    city = City()
    # The sender's clock is ahead.
    data = city.signer.sign(order(issued=START_S + 60, expires=START_S + 600))
    city.take(data)
    lost = Book()
    lost.lost = True
    city.desk = city.open(lost)
    taken = city.take(data)
    assert taken.refusal is not None and taken.refusal.code == "command.before"
    city.clock.advance(62_000)
    city.desk.tidy(city.now)
    assert city.give("c2").accepted
    # It is no different after one more restart.
    city.restart()
    assert city.take(data).refusal is not None


# ---- in time


def test_what_was_not_sent_in_time_is_never_sent() -> None:
    city = City()
    city.give("a")
    city.give("b")
    assert city.handed_out() == ["a"]
    city.clock.advance(59_999)
    assert city.desk.tidy(city.now) == []
    assert city.desk.next_end_ms() == 60_000
    city.clock.advance(1)
    ended = city.desk.tidy(city.now)
    assert [(t.id, t.state, t.code) for t in ended] == [
        ("a", "expired", "command.expired"),
        ("b", "expired", "command.expired"),
    ]
    assert city.handed_out() == [] and city.desk.next_end_ms() is None


def test_what_was_sent_and_not_answered_expires_with_doubt_and_a_late_answer_counts() -> None:
    city = City()
    city.give()
    (ticket,) = city.deliver()
    city.clock.advance(60_000)
    city.desk.tidy(city.now)
    assert (ticket.state, ticket.code) == ("expired", "command.unanswered")
    city.restart()
    (ticket,) = city.desk.book.tickets.values()
    assert city.desk.result(7, 1, codes.DONE, "", city.now) is ticket
    assert (ticket.state, ticket.code, ticket.outcome) == ("done", None, "done")


@pytest.mark.parametrize("jump_s", [-5 * 365 * DAY_S, -30, 30, 5 * 365 * DAY_S])
def test_step_of_the_wall_clock_neither_ends_nor_revives_a_command(jump_s: int) -> None:
    city = City()
    city.give()
    city.clock.step_wall(jump_s * 1000)
    city.restart()
    assert city.ended == []
    city.clock.advance(59_999)
    assert city.desk.tidy(city.now) == []
    city.clock.advance(1)
    assert len(city.desk.tidy(city.now)) == 1


def test_after_a_reboot_it_waits_for_the_clock() -> None:
    city = City()
    city.give("a")
    city.give("b", node=2, expires=START_S + 300)
    city.clock.reboot()
    city.clock.set_synced(False)
    city.restart()
    city.clock.advance(100_000)
    assert city.desk.tidy(city.now) == [] and city.handed_out() == []
    city.clock.set_synced(True)
    assert [t.id for t in city.desk.tidy(city.now)] == ["a"]
    assert city.handed_out() == ["b"]
    city.clock.set_synced(False)
    city.clock.advance(200_000)
    assert [t.id for t in city.desk.tidy(city.now)] == ["b"]


def test_clock_that_was_years_ahead_does_not_lock_the_city_out() -> None:
    city = City()
    years_ms = 4 * 365 * DAY_S * 1000
    city.clock.step_wall(years_ms)
    city.desk = city.open(Book())
    assert city.give("a").accepted
    city.clock.step_wall(-years_ms)
    city.desk.tidy(city.now)
    assert city.give("b").accepted
    city.desk.book.floor = START_S + years_ms // 1000
    city.desk.tidy(city.now)
    city.clock.advance(2 * DAY_S * 1000)
    assert city.give("c").accepted


def test_command_of_the_gateway_itself_that_was_cut_short_is_not_begun_again() -> None:
    city = City()
    city.give("a", "gateway.status")
    (ticket,) = city.deliver()
    ticket.state = "sent"
    city.restart()
    assert [(t.id, t.state, t.code) for t in city.ended] == [("a", "failed", "command.interrupted")]
    assert city.handed_out() == []


# ---- bounds


def test_queue_of_a_node_is_bounded() -> None:
    city = City()
    for number in range(NODE_QUEUE):
        assert city.give(f"a{number}").accepted
    taken = city.give("more")
    assert taken.refusal is not None and taken.refusal.code == "command.full"
    assert taken.tell and "more" not in city.desk.book.tickets
    assert city.give("other", node=2).accepted
    city.clock.advance(60_000)
    city.desk.tidy(city.now)
    assert city.give("more").accepted


def test_rate_of_a_key_is_bounded_and_copies_do_not_use_it_up() -> None:
    city = City(per_minute=3)
    data = city.signer.sign(order("a0"))
    city.take(data)
    for _ in range(20):
        city.take(data)
    assert [city.give(f"a{n}", node=n).accepted for n in (1, 2, 3)] == [True, True, False]
    assert city.desk.counters["command.rate"] == 1
    city.clock.advance(20_000)
    assert city.give("a3", node=3).accepted


def test_memory_is_shared_among_keys_and_never_grows_beyond_its_bound() -> None:
    city = City(signers=3, per_minute=100_000, max_span_s=7 * DAY_S)
    share = MEMORY // 4
    for number in range(share):
        taken = city.give(
            f"a{number}", "node.configure", data={"x": "y" * 150}, node=10, expires=START_S + DAY_S
        )
        assert taken.refusal is not None and taken.refusal.code == "node.unknown"
        city.clock.advance(100)
    assert city.refusal("more", node=1) == "command.full"
    other = Signer("key-2", 2)
    assert city.take(other.sign(order("theirs", node=1, expires=START_S + 600))).accepted
    assert len(city.desk.book.tickets) == share + 1
    assert len(city.desk.book.dump()) < 64 * 1024
    # Once nothing of them could come again, they make room.
    city.clock.advance(2 * DAY_S * 1000)
    city.desk.tidy(city.now)
    assert len(city.desk.book.tickets) == SHOWN
    assert city.give("more", node=1).accepted


def test_answers_about_what_is_not_remembered_are_bounded() -> None:
    city = City()
    old = city.signer.sign(order("old", issued=START_S - 100, expires=START_S - 50))
    told = sum(city.take(old).tell for _ in range(500))
    assert told == desks.ANSWERS_PER_MINUTE
    assert city.desk.book.tickets == {}


def test_copies_do_not_wear_the_card() -> None:
    city = City()
    known = city.signer.sign(order("known"))
    city.take(known)
    assert city.desk.dirty
    city.desk.dirty = False
    city.take(known)
    city.give("known", "node.restart")
    city.give("old", issued=START_S - 100, expires=START_S - 50)
    city.give("theirs", site="demak-1")
    city.take(Signer("ops", seed=7).sign(order("forged")))
    assert not city.desk.dirty
    city.give("forbidden", node=10)
    assert city.desk.dirty


# ---- commands of the control socket


def test_local_command_waits_its_turn_and_replaces_a_local_one() -> None:
    city = City()
    city.give("a")
    city.deliver()
    first, _ = city.desk.take_local("l1", "node.identify", 7, 5, city.now, 600)
    assert city.handed_out() == []
    second, replaced = city.desk.take_local("l2", "node.health", 7, None, city.now, 600)
    assert replaced == [first]
    assert (first.state, first.code, second.state) == ("failed", "command.replaced", "queued")
    city.desk.result(7, 1, codes.DONE, "", city.now)
    assert city.handed_out() == ["l2"]


def test_local_command_needs_no_clock() -> None:
    city = City()
    city.clock.set_synced(False)
    ticket, _ = city.desk.take_local("l1", "node.health", 7, None, city.now, 600)
    assert ticket.expires is None and city.handed_out() == ["l1"]
    city.restart()
    assert city.handed_out() == ["l1"]


# ---- the file


def test_book_is_what_was_written() -> None:
    city = City()
    city.give("a", "node.configure", data={"record": {"batch": None}, "n": "é"})
    city.give("b", "gateway.status")
    city.deliver()
    city.desk.book.tickets["b"].end("done", city.now)
    city.desk.book.tickets["b"].result = {"version": "1"}
    text = city.desk.book.dump()
    found = Book.load(text)
    assert found.dump() == text and found.tickets == city.desk.book.tickets


def test_every_damage_to_the_file_is_noticed() -> None:
    city = City()
    city.give("a")
    text = city.desk.book.dump()
    for place in range(0, len(text), 3):
        changed = chr(ord(text[place]) ^ 1)
        with pytest.raises(Damaged):
            Book.load(text[:place] + changed + text[place + 1 :])
        with pytest.raises(Damaged):
            Book.load(text[:place])


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"since": "x"}, {"commands": [1]}, {"commands": [{"id": "x"}]}, {"floor": None}]
)
def test_file_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    document = {"v": 1, "since": None, "lost": False, "floor": 0, "commands": [], **change}
    line = json.dumps(document)
    with pytest.raises(Damaged):
        Book.load(f"{line}\n{books._seal(line)}\n")


def test_state_tells_nothing_of_the_signature() -> None:
    city = City()
    document = json.loads(city.signer.sign(order()))
    taken = city.give()
    assert taken.ticket is not None
    state = json.dumps(taken.ticket.to_state())
    assert document["signature"] not in state + city.desk.book.dump()
    assert GATEWAY not in state
