"""The proof itself: it must notice what it is there to notice, and say the same thing twice."""

import pytest

from simpang.prove.accounts import Accounts, make_record, number_of
from simpang.prove.run import Run, Scenario, run_scenario
from simpang_protocol.polledlink import PolledLink
from simpang_protocol.session import NodeSession
from simpang_protocol.window import NEW, ReceiveWindow

SMALL = Scenario("direct", 2, 0.3, backlog=50, steady=2)


def test_same_seed_gives_the_same_run_and_another_one_another() -> None:
    first, second, other = (run_scenario(Scenario("espnow", 3, 0.3, seed=n, backlog=40)) for n in (5, 5, 6))
    assert first == second
    assert first.to_dict() != other.to_dict()


def test_acknowledgement_before_the_commit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def early(session, header, frame, *rest):  # type: ignore[no-untyped-def]
        received = receive(session, header, frame, *rest)
        session._pending += 1
        commit(session, received.changes)
        return received

    receive, commit = NodeSession.receive, NodeSession.committed
    monkeypatch.setattr(NodeSession, "receive", early)
    monkeypatch.setattr(NodeSession, "committed", lambda session, changes: None)
    monkeypatch.setattr(NodeSession, "idle", property(lambda session: True))
    run = Run(SMALL)
    result = run.run()
    assert run.accounts.freed_before_commit > 0
    assert not result.sound


def test_second_copy_in_the_store_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    take = ReceiveWindow.take

    def take_all(window: ReceiveWindow, seq: int) -> int:
        take(window, seq)
        return NEW

    monkeypatch.setattr(ReceiveWindow, "take", take_all)
    result = run_scenario(SMALL)
    assert result.duplicates > 0
    assert not result.sound


def test_record_that_a_node_forgets_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    build = PolledLink._next_frame

    def forget(link: PolledLink, now_ms: int, polled: bool) -> bytes:
        for epoch, seq, _ in link._todo[:1]:
            link._journal.free(epoch, seq, 0)
            link._journal.free(epoch, seq + 1, 0)
        return build(link, now_ms, polled)

    monkeypatch.setattr(PolledLink, "_next_frame", forget)
    monkeypatch.setattr("simpang.prove.run._BACKLOG_LIMIT_US", 20_000_000)
    run = Run(Scenario("rs485", 2, 0.3, backlog=50, steady=2))
    result = run.run()
    assert result.lost > 0
    assert run.accounts.freed_before_commit > 0
    assert not result.sound


def test_accounts_tell_a_second_copy_from_a_foreign_record() -> None:
    accounts = Accounts(range(1, 3))
    record = make_record(1, accounts.create(1, 10), 0)
    accounts.store(1, 1, 0, record, 20)
    assert (accounts.stored, accounts.duplicates, accounts.foreign) == (1, 0, 0)
    accounts.store(1, 1, 0, record, 30)
    accounts.store(1, 2, 0, record, 30)
    assert accounts.duplicates == 2
    accounts.store(2, 1, 0, record, 30)
    accounts.store(1, 1, 1, record[:-1] + b"\xff", 30)
    assert (accounts.stored, accounts.foreign) == (1, 2)
    assert accounts.latencies_s() == [0.00001]


def test_accounts_know_what_is_neither_stored_nor_held() -> None:
    accounts = Accounts(range(1, 2))
    for _ in range(3):
        accounts.create(1, 0)
    accounts.store(1, 1, 0, make_record(1, 0, 0), 5)
    accounts.free(1, make_record(1, 0, 0))
    assert accounts.lost({1: {1, 2}}) == 0
    assert accounts.balances({1: {1, 2}})
    assert accounts.lost({1: {2}}) == 1
    assert not accounts.balances({1: {2}})


def test_records_differ_and_have_the_size_of_the_study() -> None:
    records = {make_record(node, number, 0) for node in (1, 2) for number in range(300)}
    assert len(records) == 600
    assert {len(record) for record in records} == {66}
    assert number_of(make_record(7, 70_000, 3)) == (7, 70_000)
