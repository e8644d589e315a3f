"""`simpang prove corrupt` in short, and that it finds a store without salvage and one without CRCs."""

import json

import pytest

from simpang.cli import run
from simpang.prove import corrupt


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    status = run(["prove", "corrupt", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_store_goes_on_and_gets_back_what_is_whole(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corrupt, "WORLDS", 3)
    status, report = told(capsys, "--count", "20", "--seed", str(seed), "--jobs", "1")
    assert report["modes"]["safe"]["faults"] == []  # type: ignore[index]
    assert status == 0
    assert report["scenarios"] == 20
    assert report["acknowledged"] > 1000  # type: ignore[operator]
    assert (report["lost"], report["duplicates"], report["corrupt"]) == (0, 0, 0)


def test_missing_protections_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corrupt, "WORLDS", 2)
    status, report = told(capsys, "--unsafe", "--count", "20", "--seed", "3", "--jobs", "1")
    assert status == 0
    assert report["modes"]["no salvage"]["lost"]  # type: ignore[index]
    assert report["modes"]["no CRC"]["faults"]  # type: ignore[index]


def test_one_scenario_happens_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrupt, "WORLDS", 2)
    first = told(capsys, "--seed", "5", "--only", "3", "--jobs", "1")[1]
    second = told(capsys, "--seed", "5", "--only", "3", "--jobs", "1")[1]
    for report in (first, second):
        del report["modes"]["safe"]["seconds"]  # type: ignore[attr-defined]
    assert first == second


def test_rows_that_damage_hid_from_the_count_are_looked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A log was moved aside and taken in before the file behind it turned out to be damaged too.
    status, report = told(capsys, "--seed", "20266", "--only", "903", "--jobs", "1")
    assert report["modes"]["safe"]["faults"] == []  # type: ignore[index]
    assert (status, report["lost"]) == (0, 0)
