"""`simpang prove full` in short."""

import json

import pytest

from simpang.cli import run
from simpang.prove import full


def test_full_and_read_only_disks_lose_nothing_and_are_recovered_from(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why_not = full.why_not()
    if why_not is not None:
        pytest.skip(f"no disk can be mounted here: {why_not}")
    kinds = [(1, full.STORE)] + ([(4, full.READONLY)] if full.can_make_ext4() else [])
    monkeypatch.setattr(full, "kinds", lambda _seed, _count: kinds)
    status = run(["prove", "full", "--seed", str(seed), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == []
    assert status == 0
    assert report["acknowledged"] > 0
    assert (report["lost"], report["duplicates"], report["corrupt"]) == (0, 0, 0)


def test_loss_on_a_full_disk_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = full.Tally(scenarios=1, acknowledged=9, lost=2, faults=["--only 0: 2 are gone"]).told()
    monkeypatch.setattr(full, "why_not", lambda: None)
    monkeypatch.setattr(full, "run", lambda *_: found)
    assert run(["prove", "full", "--count", "1", "--seed", "1"]) == 1
    assert "2 are gone" in capsys.readouterr().out
