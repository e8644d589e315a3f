"""`simpang prove kill` in short, and that it finds a gateway that acknowledges too early."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from conftest import MosquittoCommand
from simpang.cli import run
from simpang.prove import kill, kill_cabinet, oldstore
from simpang_gateway.store import Batch
from tests.gateway.store.kit import Events, opened, read_all, records


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    status = run(["prove", "kill", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_nothing_is_lost_or_doubled_by_kills(
    seed: int,
    mosquitto_command: MosquittoCommand,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Two gateways; the second one is killed in its migration.
    monkeypatch.setattr(kill, "_MIGRATES", 2)
    tally = kill.Tally()
    for piece in kill.pieces(seed, 6, *mosquitto_command.argv, size=4):
        tally.add(kill.run_piece(piece))
    assert tally.faults == []
    assert (tally.lost, tally.duplicates, tally.corrupt, tally.scenarios) == (0, 0, 0, 6)
    assert tally.phases["migration"] == 2
    assert tally.acknowledged > 100


def test_gateway_that_acknowledges_before_it_commits_is_found(
    seed: int, mosquitto_command: MosquittoCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    # A kill may meet a moment when nothing was on its way to the card.
    for attempt in range(5):
        status, report = told(
            capsys,
            *("--unsafe", "--count", "2", "--seed", str(seed + attempt), "--mosquitto"),
            *mosquitto_command.argv,
        )
        assert report["scenarios"] == 2
        assert status == (0 if report["lost"] else 1)
        if report["lost"]:
            break
    assert report["lost"]


def test_piece_that_does_not_exist_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    program = shutil.which("true") or "true"
    assert run(["prove", "kill", "--count", "10", "--only", "1", "--mosquitto", program]) == 2


@pytest.mark.parametrize("version", oldstore.VERSIONS)
async def test_store_of_an_earlier_release_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    identities = [(node, 65_536, seq) for seq in range(20) for node in (1, 2)]
    oldstore.make(
        tmp_path / "store.db", version, identities, lambda node, epoch, seq: kill_cabinet.health(seq, node)
    )
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        assert connection.execute("pragma user_version").fetchone() == (version,)
    events = Events()
    store = await opened(tmp_path, events)
    assert set(events.codes()) <= {"store.migrated"}
    assert [(row.node, row.epoch, row.seq) for row in await read_all(store)] == identities
    assert {window.base for window in await store.load_windows()} == {20}
    await store.commit(Batch(records=records(0, 1)))
    await store.close()
