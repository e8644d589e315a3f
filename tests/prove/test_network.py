"""`simpang prove network`: short scenarios with most faults, and a careless uplink that is noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from simpang.cli import run
from simpang.prove import network, network_closes, network_day, network_run, network_unsafe
from simpang.prove.network_inside import Attempts, Names
from simpang.prove.network_plan import NAMES, OWN_CERTIFICATES, Plan, Spell, Transport, draw
from simpang.prove.network_run import CONNECTS_A_MINUTE, Outcome, most_in, run_plan
from simpang.rig.faults import Fault

# A link is found dead in a third of the usual time, and the next attempt comes at once.
QUICK: dict[str, object] = {
    "publish_timeout_s": 2,
    "keepalive_s": 5,
    "connects_per_minute": 100_000,
    "backoff_max_s": 1,
}
FORBIDDEN = (0x80, 0x87, 0x97, 0x99)


def plan(number: int, transport: Transport, *spells: Spell, **changes: Any) -> Plan:
    options: dict[str, Any] = {
        "seed": number,
        "process": False,
        "consumer_confirms": False,
        "backlog": 20,
        "per_s": 20.0,
        **changes,
    }
    return Plan(number, transport=transport, spells=spells, **options)


def spell(name: str, fault: Fault | None = None, seconds: float = 0.8, **changes: Any) -> Spell:
    return Spell(name, fault, seconds, **{"settled": False, **changes})


SHORT = (
    plan(
        1,
        "plain",
        spell("connack_refused", Fault("connack_refused", reasons=(0x87, 0x88, 0x97))),
        spell("close_after_connack", Fault("close_after_connack", hard=0.5)),
        spell("puback_refused", Fault("puback_refused", reasons=FORBIDDEN)),
        spell("puback_twice", Fault("puback_twice")),
        spell("garbage", Fault("garbage")),
    ),
    plan(
        2,
        "plain",
        spell("puback_never", Fault("puback_never", swallow=True), settled=True),
        spell("dns"),
        spell("taken_over"),
        spell("wrong_clock"),
    ),
    plan(3, "plain", spell("silent", Fault("silent"), settled=True), spell("refused", Fault("refused"))),
    plan(
        4,
        "tls",
        spell("server_cert_expired"),
        spell("own_cert_unknown"),
        spell("vanished", Fault("vanished"), settled=True),
    ),
    plan(
        5,
        "tls_at_broker",
        spell("broker_restart", settled=True),
        spell("half_open_down", Fault("half_open", up=False), settled=True),
    ),
    plan(6, "plain", spell("slow", Fault("slow", rate=4000.0, delay_s=0.1), seconds=1.5), process=True),
)


async def run_all(plans: Sequence[Plan], folder: Path, mosquitto: Sequence[str]) -> list[Outcome]:
    names, attempts = Names(), Attempts()
    with names.installed(), attempts.installed():
        return await asyncio.gather(
            *(run_plan(p, folder / str(p.number), mosquitto, names, attempts, QUICK) for p in plans)
        )


async def test_nothing_is_lost_whatever_net_and_broker_do(mosquitto_command: Any, tmp_path: Path) -> None:
    outcomes = await run_all(SHORT, tmp_path, mosquitto_command.argv)
    for outcome in outcomes:
        outcome.connects_a_minute = 0  # the limit was opened
        assert (outcome.number, outcome.wrong) == (outcome.number, [])
        assert outcome.acknowledged >= 20
    found = {kind for outcome in outcomes for kind, _ in outcome.found}
    assert found >= {"puback_never", "silent", "half_open"}


async def test_uplink_that_takes_a_refusal_for_a_success_is_noticed(
    mosquitto_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_run, "_GRACE_S", 1.0)
    refused = spell("puback_refused", Fault("puback_refused", reasons=FORBIDDEN), seconds=1.0, settled=True)
    with network_unsafe.broken("refusal-is-success"):
        (outcome,) = await run_all([plan(1, "plain", refused)], tmp_path, mosquitto_command.argv)
    assert (outcome.lost > 0, outcome.hung) == (True, False)
    assert f"{outcome.lost} lost" in outcome.wrong


def test_broker_that_closes_behind_connack_makes_nothing_hang(mosquitto_command: Any, seed: int) -> None:
    report = network_closes.run(seed, 16, 8, mosquitto_command.argv)
    assert (report["hangs"], report["lost"]) == (0, 0)
    assert report["closes"] >= 16
    assert report["acknowledged"] == 8 * 20


def test_no_bad_broker_is_hammered_in_virtual_time(seed: int) -> None:
    report = network_day.run(seed, seconds=3600)
    for name, day in report["days"].items():
        assert day["connects_per_minute_max"] <= CONNECTS_A_MINUTE, name
        assert day["attempts"] >= 30, name  # it goes on trying
        assert day["longest_pause_s"] < 120, name


def test_uplink_without_a_limit_is_noticed(seed: int) -> None:
    report = network_day.run(seed, 600, ["lasts three seconds"], connects_per_minute=100_000)
    assert report["wrong"] == ["lasts three seconds"]


# ---- plans, figures and the command, without a network


def test_plan_of_a_number_is_always_the_same_and_each_fault_is_drawn(seed: int) -> None:
    plans = [draw(seed, number) for number in range(3 * len(NAMES))]
    assert plans == [draw(seed, number) for number in range(3 * len(NAMES))]
    assert plans != [draw(seed + 1, number) for number in range(3 * len(NAMES))]
    assert {spell.name for plan in plans for spell in plan.spells} == set(NAMES)
    for drawn in plans:
        names = [spell.name for spell in drawn.spells]
        assert len(names) == len(set(names)) >= 2
        assert drawn.transport != "plain" or not set(names) & set(OWN_CERTIFICATES)
        assert not (drawn.process and set(names) & {"dns", "dns_hangs", "wrong_clock"})
        assert drawn.consumer_confirms or not set(names) & {"broker_forgets", "broker_killed"}
    assert 0 < sum(drawn.process for drawn in plans) < len(plans)


def test_most_in_a_minute_is_counted_over_every_minute() -> None:
    assert most_in([], 60) == 0
    assert most_in([0, 59, 60, 61, 118.9, 120], 60) == 4
    assert most_in([0, 60, 120], 60) == 1


def outcome(**changes: Any) -> Outcome:
    return Outcome(**{"number": 5, "names": ("silent",), "transport": "plain", "process": False, **changes})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lost": 2}, "2 lost"),
        ({"duplicates": 1}, "1 under two identities"),
        ({"corrupt": 1}, "1 corrupt"),
        ({"out_of_order": 1}, "1 out of order"),
        ({"created": 3, "acknowledged": 2}, "1 not acknowledged"),
        ({"found": [("silent", 15.5)]}, "kept for 15.5 s"),
        ({"kept_dead": [("silent", 22.0)]}, "kept for 22.0 s"),
        ({"connects_a_minute": 11}, "11 connection attempts"),
        ({"hung": True}, "no progress"),
        ({"error": "the gateway ended"}, "the gateway ended"),
    ],
)
def test_each_broken_promise_is_wrong_and_gives_status_1(
    changes: dict[str, Any],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_job(job: network.Job) -> list[tuple[str | None, Outcome]]:
        return [(job.unsafe, outcome(number=number, **changes)) for number in job.numbers]

    monkeypatch.setattr(network, "run_job", run_job)
    assert run(["prove", "network", "--only", "5", "--seed", "1", "--jobs", "1", "--broker", "none"]) == 1
    out = capsys.readouterr().out
    assert "WRONG scenario 5: " in out
    assert word in out


def test_json_has_the_keys_of_every_proof(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_job(job: network.Job) -> list[tuple[str | None, Outcome]]:
        part = outcome(created=4, acknowledged=4, found=[("silent", 7.0), ("silent", 13.0)], connects=3)
        return [(job.unsafe, part) for _ in job.numbers]

    monkeypatch.setattr(network, "run_job", run_job)
    arguments = ["--count", "3", "--jobs", "1", "--seed", "7", "--broker", "none", "--json"]
    assert run(["prove", "network", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    shared = ("scenarios", "acknowledged", "lost", "duplicates", "corrupt", "seed")
    assert {key: told[key] for key in shared} == {
        "scenarios": 3,
        "acknowledged": 12,
        "lost": 0,
        "duplicates": 0,
        "corrupt": 0,
        "seed": 7,
    }
    assert (told["detect_s"]["p50"], told["detect_s"]["max"]) == (10.0, 13.0)
    assert (told["hangs"], told["connects_per_minute_max"], told["faults"]) == (0, 0, {"silent": 3})


@pytest.mark.parametrize(("harmless", "status"), [(None, 0), ("sent-is-delivered", 1)])
def test_unsafe_fails_where_one_way_to_be_careless_loses_nothing(
    harmless: str | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_job(job: network.Job) -> list[tuple[str | None, Outcome]]:
        return [(job.unsafe, outcome(lost=0 if job.unsafe == harmless else 2)) for _ in job.numbers]

    monkeypatch.setattr(network, "run_job", run_job)
    arguments = ["--unsafe", "--count", "2", "--jobs", "1", "--seed", "1", "--broker", "none", "--json"]
    assert run(["prove", "network", *arguments]) == status
    lost_by = json.loads(capsys.readouterr().out)["lost_by"]
    assert lost_by == {kind: 0 if kind == harmless else 4 for kind in network_unsafe.KINDS}


def test_unknown_carelessness_is_an_error() -> None:
    with pytest.raises(ValueError, match="is not one of"), network_unsafe.broken("haste"):
        pass


@pytest.mark.parametrize("kind", network_unsafe.KINDS)
def test_carelessness_is_tried_where_it_can_show(kind: str, seed: int) -> None:
    jobs, _ = network.jobs(seed, range(30), 16, ["mosquitto"], [kind])
    plans = [draw(seed, number) for job in jobs for number in job.numbers]
    assert len({drawn.number for drawn in plans}) == 30
    for drawn in plans:
        assert network_unsafe.SHOWN_BY[kind] & {spell.name for spell in drawn.spells}
        assert not drawn.process and not drawn.consumer_confirms


def test_scenarios_are_shared_out_whole() -> None:
    jobs, workers = network.jobs(1, range(50), 16, ["mosquitto"])
    assert sorted(number for job in jobs for number in job.numbers) == list(range(50))
    assert 1 <= workers <= 16
    assert all(job.places * workers >= 16 for job in jobs)


def test_what_does_not_go_together_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prove", "network", "--day", "--unsafe"]) == 2
    assert "do not go together" in capsys.readouterr().err
