"""`simpang prove powercut` in short, and that it finds what is unsafe; what a cut leaves on its disk."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import in_ci
from simpang.cli import run
from simpang.prove import native, powercut, powercut_live
from simpang.prove.powercut_account import EMPTY, State, compare
from simpang.prove.powercut_disk import Disk, read_folder
from simpang.prove.powercut_trace import Operation, Untraceable, read_log
from simpang.rig.errors import RigError

CUTS = 200


@pytest.fixture
def compiler() -> None:
    """Skips the test where there is no C compiler; fails it in CI."""
    if shutil.which("cc") is None:
        if in_ci():
            pytest.fail("there is no C compiler")
        pytest.skip("there is no C compiler (cc)")


def opened(fd: int, path: str, flags: int = os.O_CREAT | os.O_RDWR) -> Operation:
    return Operation("O", fd, flags, path.encode(), b"")


def written(fd: int, offset: int, data: bytes) -> Operation:
    return Operation("W", fd, offset, data, b"")


def synced(fd: int) -> Operation:
    return Operation("S", fd, 0, b"", b"")


FOLDER = (opened(9, "", os.O_RDONLY), synced(9))


def cuts(seed: int, base: dict[str, bytes], *operations: Operation) -> list[dict[str, bytes]]:
    """What many cuts after these operations leave."""
    disk = Disk.of(base)
    for operation in operations:
        disk.apply(operation)
    return [disk.cut(random.Random(f"{seed} {number}"))[1] for number in range(CUTS)]


# ---- the disk


def test_what_was_synced_is_there_after_every_cut(seed: int) -> None:
    data = random.Random(seed).randbytes(9000)
    left = cuts(seed, {}, opened(3, "a"), written(3, 0, data), synced(3), *FOLDER)
    assert all(files == {"a": data} for files in left)


def test_synced_file_without_a_synced_name_may_be_gone(seed: int) -> None:
    left = cuts(seed, {}, opened(3, "a"), written(3, 0, b"data"), synced(3))
    assert {tuple(files) for files in left} == {(), ("a",)}
    assert all(files["a"] == b"data" for files in left if files)


def test_unsynced_writes_are_dropped_kept_torn_and_destroyed(seed: int) -> None:
    old, new = b"o" * 8192, b"n" * 1000
    left = [files["a"] for files in cuts(seed, {"a": old}, opened(3, "a"), written(3, 600, new))]
    assert old in left
    assert old[:600] + new + old[1600:] in left
    torn = [found for found in left if set(found) == set(b"on") and found.count(b"n") not in (0, 1000)]
    assert torn
    destroyed = [found for found in left if len(set(found)) > 2]
    assert destroyed
    # Sectors that the write did not touch are as they were, and those it touched in part may be destroyed.
    assert all(found[4096:] == old[4096:] for found in left)
    assert any(found[:512] != old[:512] for found in destroyed)


def test_two_unsynced_writes_may_come_in_any_order(seed: int) -> None:
    left = cuts(seed, {"a": b"0" * 512}, opened(3, "a"), written(3, 0, b"1" * 512), written(3, 0, b"2" * 512))
    assert {files["a"][:1] for files in left} >= {b"0", b"1", b"2"}


def test_names_come_in_their_order_and_whole(seed: int) -> None:
    rename = Operation("R", 0, 0, b"new", b"old")
    gone = Operation("U", 0, 0, b"other", b"")
    left = cuts(seed, {"new": b"n", "old": b"o", "other": b"x"}, rename, gone)
    found = {tuple(sorted(files.items())) for files in left}
    assert found == {
        (("new", b"n"), ("old", b"o"), ("other", b"x")),
        (("old", b"n"), ("other", b"x")),
        (("old", b"n"),),
    }


def test_file_cut_to_nothing_may_have_its_old_size(seed: int) -> None:
    shorter = Operation("T", 3, 0, b"", b"")
    left = cuts(seed, {"a": b"o" * 5000}, opened(3, "a"), shorter)
    assert {len(files["a"]) for files in left} == {0, 5000}
    left = cuts(seed, {"a": b"o" * 5000}, opened(3, "a"), shorter, synced(3))
    assert {len(files["a"]) for files in left} == {0}


def test_unwritten_part_of_a_file_may_be_stale(seed: int) -> None:
    left = [files["a"] for files in cuts(seed, {"a": b""}, opened(3, "a"), written(3, 0, b"n" * 4096))]
    assert {len(found) for found in left} == {0, 4096}
    assert bytes(4096) in left
    assert any(len(set(found)) > 100 for found in left)


# ---- the tracer


def test_log_of_the_tracer_tells_what_became_of_the_files(tmp_path: Path, compiler: None) -> None:
    program = """
import os, sys
os.chdir(sys.argv[1])
with open("a", "wb", buffering=0) as file:
    file.write(b"first"); file.write(b" second"); os.fsync(file.fileno())
fd = os.open(sys.argv[1] + "/b", os.O_CREAT | os.O_RDWR)
os.pwrite(fd, b"x" * 5000, 100); os.writev(fd, [b"1", b"23"]); os.ftruncate(fd, 3000); os.close(fd)
with open("b", "ab") as file:
    file.write(b"end")
fd = os.open("c", os.O_CREAT | os.O_RDWR); os.posix_fallocate(fd, 0, 4096); os.close(fd)
os.rename("a", "d"); os.mkdir("e"); os.rename("d", "e/f"); open("g", "w").close(); os.unlink("g")
import shutil; shutil.copyfile("b", "h")
"""
    state = tmp_path.resolve() / "state"
    state.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(native.tracer()),
        "SIMPANG_TRACE_ROOT": str(state),
        "SIMPANG_TRACE_LOG": str(tmp_path / "log"),
    }
    subprocess.run([sys.executable, "-c", program, state], env=environment, check=True, timeout=60)
    disk = Disk()
    for operation in read_log(tmp_path / "log"):
        disk.apply(operation)
    assert disk.files() == read_folder(state)
    assert set(disk.files()) == {"b", "c", "e/f", "h"}

    escape = "import mmap, os, sys; fd = os.open(sys.argv[1] + '/b', os.O_RDWR); mmap.mmap(fd, 0)"
    subprocess.run([sys.executable, "-c", escape, state], env=environment, check=False, timeout=60)
    with pytest.raises(Untraceable, match="mmap"):
        read_log(tmp_path / "log")


# ---- the proof


def test_no_crash_image_lacks_what_was_acknowledged(
    seed: int, compiler: None, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["prove", "powercut", "--count", "150", "--seed", str(seed), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["faults"] == []
    assert status == 0
    assert (told["lost"], told["duplicates"], told["corrupt"], told["seed"]) == (0, 0, 0, seed)
    assert told["scenarios"] == 150
    assert told["acknowledged"] > 10_000


@pytest.mark.parametrize(("mode", "count"), [("normal", 30), ("off", 30), ("psow", 80)])
def test_each_unsafe_setting_loses_rows(mode: str, count: int, seed: int, compiler: None) -> None:
    tally = powercut.Tally()
    with powercut.scratch() as folder:
        powercut.prepare(seed, count, mode, folder)
        for piece in powercut.pieces(seed, count, mode, folder):
            tally.add(powercut.run_piece(piece))
    assert tally.lost
    assert tally.faults


@pytest.mark.parametrize(("lost", "status"), [(1, 0), (0, 1)])
def test_status_of_unsafe_is_0_only_if_each_setting_lost(
    lost: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(powercut, "prepare", lambda *_: 0)
    tallies = {
        mode: powercut.Tally(scenarios=1, lost=lost if mode == "psow" else 1, faults=["one"])
        for mode in ("normal", "off", "psow")
    }
    monkeypatch.setattr(powercut, "run_piece", lambda piece: tallies[piece.mode])
    assert run(["prove", "powercut", "--unsafe", "--count", "1", "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert [each["lost"] for each in told["modes"].values()] == [1, 1, lost]
    assert (told["scenarios"], told["lost"]) == (3, 2 + lost)


def test_one_image_alone_is_the_same_one(seed: int, compiler: None) -> None:
    with powercut.scratch() as folder:
        powercut.prepare(seed, 6, "safe", folder)
        (piece,) = powercut.pieces(seed, 6, "safe", folder)
        whole = powercut.run_piece(piece)
        parts = powercut.Tally()
        for number in range(6):
            (piece,) = powercut.pieces(seed, 6, "safe", folder, number)
            alone = powercut.run_piece(piece)
            assert alone.scenarios == 1
            parts.add(alone)
    assert parts == whole


def test_only_beyond_the_count_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prove", "powercut", "--count", "10", "--only", "10"]) == 2


def test_without_a_compiler_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert run(["prove", "powercut", "--count", "1"]) == 2
    assert "apt-get install gcc" in capsys.readouterr().err


def test_states_that_differ_are_told_apart() -> None:
    def state(*rows: tuple[int, int, int, str], **tables: frozenset[tuple[object, ...]]) -> State:
        return State({"record": frozenset(rows), **tables})

    one, two, other = (1, 7, 0, "a"), (2, 7, 1, "b"), (2, 7, 1, "x")
    assert not compare(state(one), EMPTY, EMPTY).some
    assert not compare(state(one), state(one), state(one, two)).some
    assert not compare(state(one, two), state(one), state(one, two)).some
    assert compare(state(one), state(one, two), state(one, two)).lost == 1
    assert compare(state(one, other), state(one, two), state(one, two)).changed == 1
    assert compare(state(one, two), state(one), state(one)).invented == 1
    assert compare(state(one, (2, 7, 0, "a")), state(one), state(one)).duplicates == 1


def test_state_between_two_transactions_is_whole_only_if_nothing_counts_on_what_is_not_there() -> None:
    def state(records: int, base: int, cursor: int) -> State:
        rows = [(row_id, 7, row_id - 1, b"body") for row_id in range(1, records + 1)]
        return State({
            "record": frozenset(rows),
            "window": frozenset({(7, base, 0, 0)}),
            "cursor": frozenset({(b"city", cursor, b"", 0)}),
        })

    before, after = state(2, 2, 1), state(6, 6, 2)
    for cursor in (1, 2):
        assert not compare(state(4, 4, cursor), before, after).some
    assert "counts on record" in str(compare(state(4, 5, 1), before, after))
    assert "forgets" in str(compare(state(4, 1, 1), before, after))
    assert "cursor" in str(compare(state(4, 4, 3), before, after))
    assert "cursor" in str(compare(state(4, 4, 0), before, after))


def test_live_cuts_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prove", "powercut", "--live", "1", "--count", "1"]) == 2
    capsys.readouterr()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(["prove", "powercut", "--live", "1"]) == 2
    assert "sudo" in capsys.readouterr().err


def test_live_cuts_of_a_real_file_system_lose_nothing(seed: int, compiler: None, tmp_path: Path) -> None:
    try:
        powercut_live.check()
    except RigError as error:
        pytest.skip(str(error))
    (piece,) = powercut_live.pieces(seed, 2, "safe", tmp_path)
    tally = powercut_live.run_piece(piece)
    assert tally.faults == []
    assert (tally.scenarios, tally.lost, tally.duplicates, tally.corrupt) == (2, 0, 0, 0)
