"""The demo's books: sums that hold whatever order, repetition, loss or garbage the messages come in."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from simpang.demo import accounts as books
from simpang.demo.accounts import Accounts

SITE = "site-1"
PLACES = {1: "Simpang Lima", 2: "Tugu Muda"}
START_S = 1_800_000_000
RUNS = settings(max_examples=60, deadline=None)

Identity = tuple[int, int, int]
identities = st.tuples(st.sampled_from([1, 2]), st.integers(1, 3), st.integers(0, 30))


def air(identity: Identity, row: int = 1, pm25: float = 20.0, t: int | None = START_S) -> dict[str, Any]:
    samples = [{"pm25": 19.0}, {"pm25": pm25}]
    return {"id": list(identity), "row": row, "t": t, "clock": "synced", "period": 10, "samples": samples}


def drop(identity: Identity, epoch: int, first: int, last: int) -> dict[str, Any]:
    lost = {"epoch": epoch, "first": first, "last": last, "cause": "journal_full"}
    sample = {"code": "drop", "severity": "warning", "arg1": 0, "arg2": 0, "items": {"lost": lost}}
    return {"id": list(identity), "row": 1, "t": None, "clock": "unknown", "period": 0, "samples": [sample]}


def bring(accounts: Accounts, *records: dict[str, Any], stream: str = "air", store: str = "s") -> int | None:
    node = records[0]["id"][0]
    message = {"v": 1, "site": SITE, "gateway": "demo", "store": store, "records": records}
    return accounts.arrived(f"simpang/{SITE}/{node}/{stream}", json.dumps(message).encode())


def ask(accounts: Accounts, committed: dict[int, int], lost: int = 0) -> None:
    """Two questions: what is missing counts only when it was missing before."""
    nodes = [{"node": node, "records": records} for node, records in committed.items()]
    for _ in range(2):
        accounts.asked({"nodes": nodes, "lost": {"journal_full": lost} if lost else {}})


def stats(accounts: Accounts, node: int, created: int, freed: int, dropped: int = 0) -> None:
    accounts.said(node, {"code": "node.stats", "created": created, "freed": freed, "dropped": dropped})


def per_node(found: set[Identity]) -> dict[int, int]:
    return {node: sum(identity[0] == node for identity in found) for node in PLACES}


@RUNS
@given(st.lists(identities, min_size=1))
def test_each_identity_is_delivered_once_and_every_further_arrival_is_a_repetition(arrivals):
    accounts = Accounts(SITE, PLACES)
    for identity in arrivals:
        assert bring(accounts, air(identity)) == identity[0]
    sums = accounts.sums()
    assert sums.delivered == len(set(arrivals))
    assert sums.samples == 2 * len(set(arrivals))
    assert sums.repeated == len(arrivals) - len(set(arrivals))
    assert sums.duplicates == 0
    assert sums.nodes == len({node for node, _, _ in arrivals})


@RUNS
@given(st.sets(identities, min_size=1), st.data())
def test_what_is_missing_below_the_highest_seq_of_an_epoch_is_lost(sent, data):
    arrived = data.draw(st.sets(st.sampled_from(sorted(sent)), min_size=1))
    whole = {(node, epoch, seq) for node, epoch, top in sent for seq in range(top + 1)}
    accounts = Accounts(SITE, PLACES)
    for identity in data.draw(st.permutations(sorted(arrived))):
        bring(accounts, air(identity))
    highest = {(node, epoch): seq for node, epoch, seq in sorted(arrived)}
    missing = {key for key in whole if key[2] < highest.get(key[:2], 0)} - arrived
    ask(accounts, per_node(arrived))
    assert accounts.sums().lost == len(missing)


@RUNS
@given(st.sets(identities, min_size=1), st.data())
def test_what_the_gateway_still_has_is_waiting_and_not_lost(committed, data):
    whole = {(node, epoch, seq) for node, epoch, top in committed for seq in range(top + 1)}
    arrived = data.draw(st.sets(st.sampled_from(sorted(whole))))
    accounts = Accounts(SITE, PLACES)
    for identity in sorted(arrived):
        bring(accounts, air(identity))
    ask(accounts, per_node(whole))
    sums = accounts.sums()
    assert (sums.committed, sums.delivered, sums.waiting) == (len(whole), len(arrived), len(whole - arrived))
    assert sums.lost == 0


@RUNS
@given(st.lists(st.tuples(identities, st.booleans(), st.booleans(), st.booleans()), min_size=1))
def test_another_content_row_or_store_makes_an_identity_a_duplicate_once(arrivals):
    accounts = Accounts(SITE, PLACES)
    first: dict[Identity, tuple[bool, bool, bool]] = {}
    differing = set()
    for identity, *kind in arrivals:
        content, row, store = kind
        bring(accounts, air(identity, 1 + row, 20.0 + content), store="t" if store else "s")
        if first.setdefault(identity, (content, row, store)) != (content, row, store):
            differing.add(identity)
    assert accounts.sums().duplicates == len(differing)
    assert accounts.sums().delivered == len(first)


@RUNS
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_the_accounts_balance(delivered, waiting, held, dropped, behind):
    accounts = Accounts(SITE, PLACES)
    for seq in range(delivered):
        bring(accounts, air((1, 1, seq), row=seq))
    committed = delivered + waiting
    created = committed + held + dropped
    # The node's own account may be older than what has arrived since.
    stats(accounts, 1, max(0, created - behind), max(0, committed - behind), dropped)
    ask(accounts, {1: committed, 2: 0}, lost=dropped)
    sums = accounts.sums()
    assert sums.created == sums.delivered + sums.waiting + sums.held + dropped
    assert sums.created >= created - behind
    assert sums.lost == dropped


def test_a_gap_counts_only_when_it_was_there_at_the_question_before():
    accounts = Accounts(SITE, PLACES)
    bring(accounts, air((1, 1, 1)))
    status = {"nodes": [{"node": 1, "records": 1}], "lost": {}}
    accounts.asked(status)
    assert accounts.sums().lost == 0
    accounts.asked(status)
    assert accounts.sums().lost == 1
    bring(accounts, air((1, 1, 0)))
    accounts.asked(status)
    assert accounts.sums().lost == 0


def test_a_record_that_a_node_freed_and_the_gateway_has_not_is_lost():
    accounts = Accounts(SITE, PLACES)
    stats(accounts, 1, created=5, freed=5)
    ask(accounts, {1: 4})
    assert accounts.sums().lost == 1


def test_what_was_freed_while_the_gateway_was_asked_is_not_lost():
    accounts = Accounts(SITE, PLACES)
    ask(accounts, {1: 4})
    stats(accounts, 1, created=5, freed=5)
    accounts.asked({"nodes": [{"node": 1, "records": 4}], "lost": {}})
    assert accounts.sums().lost == 0


def test_a_declared_loss_counts_once():
    accounts = Accounts(SITE, PLACES)
    bring(accounts, air((1, 1, 9)))
    bring(accounts, drop((1, 2, 0), epoch=1, first=0, last=8), stream="event")
    stats(accounts, 1, created=11, freed=2, dropped=9)
    ask(accounts, {1: 2}, lost=9)
    sums = accounts.sums()
    assert (sums.lost, sums.held, sums.created) == (9, 0, 11)


def test_a_time_that_became_known_is_no_other_content():
    accounts = Accounts(SITE, PLACES)
    bring(accounts, air((1, 1, 0), t=None))
    bring(accounts, air((1, 1, 0)))
    assert (accounts.sums().duplicates, accounts.sums().repeated) == (0, 1)


def test_the_newest_sample_is_read_with_the_end_of_its_interval():
    accounts = Accounts(SITE, PLACES)
    bring(accounts, air((1, 1, 0), pm25=23.5))
    reading = accounts.nodes[1].reading
    assert reading is not None
    assert (reading.t, reading.values) == (START_S + 20, {"pm25": 23.5})
    assert accounts.nodes[1].last is not None
    assert accounts.nodes[1].last["records"][0]["id"] == [1, 1, 0]
    assert accounts.nodes[2].last is None


def test_old_contents_are_forgotten_and_their_identities_are_not(monkeypatch):
    monkeypatch.setattr(books, "KEPT", 2)
    accounts = Accounts(SITE, PLACES)
    for seq in range(4):
        bring(accounts, air((1, 1, seq)))
    bring(accounts, air((1, 1, 0), row=7))
    bring(accounts, air((1, 1, 3), row=7))
    sums = accounts.sums()
    assert (sums.delivered, sums.repeated, sums.duplicates) == (4, 1, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "row", "t", "period", "samples", "items", "lost"]), inner)
    ),
    max_leaves=12,
)


@RUNS
@given(st.sampled_from(["air", "event", "x"]), JSON, JSON)
def test_messages_of_another_form_are_ignored_whole(stream, record, site):
    accounts = Accounts(SITE, PLACES)
    good = air((1, 1, 0))
    message = {"v": 1, "site": SITE, "store": "s", "records": [good, record]}
    topic = f"simpang/{SITE}/1/{stream}"
    if accounts.arrived(topic, json.dumps(message).encode()) is None:
        assert (accounts.ignored, accounts.sums().delivered) == (1, 0)
    accounts = Accounts(SITE, PLACES)
    assert accounts.arrived(topic, json.dumps({**message, "site": [site]}).encode()) is None


@RUNS
@given(st.text(max_size=20), st.binary(max_size=40))
def test_garbage_raises_nothing_and_changes_nothing(topic, payload):
    accounts = Accounts(SITE, PLACES)
    for place in (topic, f"simpang/{SITE}/1/air"):
        assert accounts.arrived(place, payload) is None
    assert accounts.sums() == Accounts(SITE, PLACES).sums()


def test_the_gateways_own_messages_are_no_nodes():
    accounts = Accounts(SITE, PLACES)
    assert accounts.arrived(f"simpang/{SITE}/gateway/status", b"online") is None
    assert accounts.ignored == 0
