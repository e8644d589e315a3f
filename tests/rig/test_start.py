"""The start of a node on the VM: boot.py, main.py and slots.py with small applications in the slots."""

import json
from pathlib import Path

import pytest

from simpang.rig import provision

REAL = provision.own_firmware()
SAY = """
import json, machine, sys
def say(code, **more):
    print(json.dumps(dict(code=code, **more)))
"""
GOOD = (
    SAY
    + """
def main(slot, trial, safe, on_well):
    say("run", name=NAME, slot=slot, trial=trial, safe=safe, cause=machine.reset_cause())
    pin = machine.Pin(4)
    while not pin.value(): pass
    on_well(HEARD)
    say("well")
    while True: pass
"""
)
CRASH = (
    SAY
    + """
def main(slot, trial, safe, on_well):
    say("run", name=NAME, slot=slot, trial=trial, safe=safe, cause=machine.reset_cause())
    raise ValueError("boom %d" % 42)
"""
)
HANG = (
    SAY
    + """
def main(slot, trial, safe, on_well):
    say("run", name=NAME, slot=slot, trial=trial, safe=safe, cause=machine.reset_cause())
    machine.WDT(timeout=50)
    while True: pass
"""
)


@pytest.fixture
def make_started(make_node, tmp_path: Path, cache: Path):
    """Makes a node with the real start files and an application; one more may wait in slot b as a trial."""

    def build(app: str, name: str, heard: bool) -> provision.Build:
        firmware = tmp_path / f"firmware-{name}"
        (firmware / "node").mkdir(parents=True)
        for part in ("boot.py", "main.py", "slots.py"):
            # Waiting before a reset is for people; here it would only take time.
            text = (REAL / part).read_text().replace("_BEFORE_RESET_S = 1", "_BEFORE_RESET_S = 0")
            (firmware / part).write_text(text)
        (firmware / "node" / "__init__.py").write_text("")
        (firmware / "node" / "app.py").write_text(f"NAME = {name!r}\nHEARD = {heard}\n" + app)
        return provision.build(firmware, blocks=96, version=name, cache=cache)

    def make(active: str, trial: str | None = None, heard: bool = True):
        first = build(active, "first", heard)
        files = {}
        if trial is not None:
            second = build(trial, "second", heard)
            slot = second.folder / "slot_a"
            for path in sorted(slot.rglob("*")):
                if path.is_file():
                    files[f"/slot_b/{path.relative_to(slot).as_posix()}"] = path.read_bytes()
            state = {"act": "a", "trial": "b", "tries": 3, "bad": None, "unwell": 0}
            files["/ota.json"] = json.dumps(state).encode()
        return make_node("", firmware=first, files=files)

    return make


def runs(node) -> list[tuple[object, ...]]:
    return [(each["name"], each["trial"], each["safe"]) for each in node.console if each["code"] == "run"]


async def test_application_of_the_active_slot_runs(make_started):
    node = make_started(GOOD)
    await node.power_on()
    event = await node.wait_event("run")
    assert event == {"code": "run", "name": "first", "slot": "a", "trial": False, "safe": False, "cause": 1}
    assert list(node.console.lines) == []
    await node.cut_power()
    # A start without trouble writes nothing.
    assert "/ota.json" not in node.list_files()


async def test_trial_is_confirmed_when_it_was_heard_and_stays(make_started):
    node = make_started(GOOD, GOOD)
    node.board.set_input(4, 1)
    await node.power_on()
    await node.wait_event("well")
    mark = node.console.total
    await node.cut_power()
    await node.power_on()
    await node.wait_event("well", after=mark)
    assert runs(node) == [("second", True, False), ("second", False, False)]


async def test_trial_that_is_only_well_and_not_heard_is_given_up(make_started):
    node = make_started(GOOD, GOOD, heard=False)
    node.board.set_input(4, 1)
    for _ in range(4):
        mark = node.console.total
        await node.power_on()
        await node.wait_event("well", after=mark)
        await node.cut_power()
    assert runs(node) == [("second", True, False)] * 3 + [("first", False, False)]


@pytest.mark.parametrize("broken", [CRASH, HANG, "import nothing_of_this_name\n"])
async def test_trial_that_fails_gives_way_to_the_old_one(make_started, broken: str):
    node = make_started(GOOD, broken)
    await node.power_on()
    await node.wait_for(lambda: ("first", False, False) in runs(node), 20)
    assert node.boots == 4
    assert set(node.resets) <= {1, 2, 3}
    assert (await node.wait_event("node.rollback"))["slot"] == "a"


async def test_crash_is_told_kept_and_followed_by_a_reset(make_started):
    node = make_started(CRASH)
    await node.power_on()
    event = await node.wait_event("node.crash")
    assert (event["src"], event["sev"], event["t"]) == ("node", "error", None)
    assert "ValueError: boom 42" in event["trace"]
    assert 'File "node.app", line 10' in event["trace"]
    await node.wait_boots(3)
    await node.cut_power()
    assert node.read_file("/crash.txt").decode() == event["trace"]


async def test_application_that_returns_is_a_crash_too(make_started):
    node = make_started("def main(**options): pass\n")
    await node.power_on()
    assert (await node.wait_event("node.crash"))["trace"] == "the application returned"
    await node.wait_boots(2)


async def test_endless_crashes_end_in_safe_mode_that_waits(make_started):
    node = make_started(CRASH)
    await node.power_on()
    event = await node.wait_event("node.safe", timeout_s=20)
    assert event["wait_s"] == "2"
    assert node.boots == 6
    assert runs(node) == [("first", False, False)] * 5
    # The power goes and comes: no waiting for a technician who stands beside it, and still safe.
    await node.cut_power()
    await node.power_on()
    await node.wait_boots(7)
    await node.wait_for(lambda: runs(node)[-1] == ("first", False, True))


async def test_crashing_update_that_had_confirmed_itself_gives_way_to_the_old_one(make_started):
    node = make_started(GOOD, CRASH)
    await node.provision()
    state = {"act": "b", "trial": None, "tries": 0, "bad": None, "unwell": 0}
    node.write_files({"/ota.json": json.dumps(state).encode()})
    await node.power_on()
    await node.wait_event("node.fallback", timeout_s=20)
    await node.wait_for(lambda: runs(node)[-1] == ("first", False, False))
    assert runs(node)[:-1] == [("second", False, False)] * 5


async def test_watchdog_runs_before_the_application_does(make_started):
    node = make_started(GOOD)
    await node.power_on()
    await node.wait_event("run")
    assert node.watchdog.timeout_s == 60
    assert node.watchdog.fed > 0
