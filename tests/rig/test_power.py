"""Power, resets, watchdog and sleep: why a node starts, and what it still knows then."""

import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from simpang.rig import RigError

# Each start says how it came about, then does what is set for its number, which is counted on the flash.
SCRIPTED = """
import machine, json, os, time, sys
try:
    with open("/count") as file:
        n = int(file.read())
except OSError:
    n = 0
with open("/count", "w") as file:
    file.write(str(n + 1))
print(json.dumps({"code": "boot", "n": n, "cause": machine.reset_cause()}))
def hang():
    while True: time.sleep_ms(5)
def say_rtc():
    print(json.dumps({"code": "rtc", "m": machine.RTC().memory().decode()}))
"""


def scripted(*steps: str) -> str:
    indented = [textwrap.indent(step, "    ") for step in steps]
    return SCRIPTED + "".join(f"if n == {n}:\n{step}\n" for n, step in enumerate(indented))


async def test_reset_causes(make_node):
    node = make_node(
        scripted(
            "machine.reset()",
            "machine.soft_reset()",
            "sys.exit(0)",
            "machine.WDT(timeout=100)\nwhile True: pass",
            "machine.deepsleep(1)",
            "pass",
        )
    )
    await node.power_on()
    await node.wait_state("halted")
    causes = [1, 2, 5, 5, 3, 4]
    assert [event["cause"] for event in node.console] == causes
    assert list(node.resets) == causes
    assert node.boots == 6
    await node.cut_power()
    await node.power_on()
    await node.wait_boots(7)
    assert node.resets[-1] == 1


FED = """
dog = machine.WDT(timeout=150)
start = time.ticks_ms()
while time.ticks_diff(time.ticks_ms(), start) < 600:
    dog.feed()
    time.sleep_ms(1)
print("fed")
"""


async def test_watchdog_is_held_off_by_feeding_and_bites_a_halted_board_too(make_node):
    node = make_node(scripted(FED, "print('second')"))
    await node.power_on()
    await node.wait_line("second")
    assert node.console.text().splitlines()[0] == "fed"
    assert list(node.resets) == [1, 3]
    assert node.watchdog.fed > 10


async def test_no_finally_of_the_firmware_runs_at_a_reset(make_node):
    node = make_node(scripted("try:\n    machine.reset()\nfinally:\n    print('not on a board')"))
    await node.power_on()
    await node.wait_boots(2)
    await node.wait_state("halted")
    assert "not on a board" not in node.console.text()


async def test_exception_leaves_the_board_at_the_prompt(make_node):
    node = make_node("print('before')\nraise ValueError('out of main')")
    await node.power_on()
    await node.wait_state("halted")
    assert node.boots == 1
    assert node.pid is None
    assert list(node.console.lines)[-1] == "ValueError: out of main"


async def test_exception_in_boot_keeps_main_from_running(make_node, tmp_path: Path):
    node = make_node("print('main')")
    (tmp_path / "firmware-n1" / "boot.py").write_text("raise RuntimeError('in boot')")
    await node.power_on()
    await node.wait_state("halted")
    assert list(node.console.lines)[-1] == "RuntimeError: in boot"
    assert "main" not in node.console.lines


async def test_deep_sleep_without_an_end_lasts_until_it_is_woken(make_node):
    node = make_node(scripted("machine.deepsleep()", "pass"))
    await node.power_on()
    await node.wait_state("asleep")
    assert node.pid is None
    node.wake()
    await node.wait_state("halted")
    assert list(node.resets) == [1, 4]
    with pytest.raises(RigError, match="not asleep"):
        node.wake()


async def test_rtc_memory_survives_resets_and_sleep_and_no_power_cut(make_node):
    node = make_node(
        scripted(
            "say_rtc()\nmachine.RTC().memory(b'kept')\nmachine.reset()",
            "say_rtc()\nmachine.WDT(timeout=50)\nhang()",
            "say_rtc()\nmachine.deepsleep(1)",
            "say_rtc()\nhang()",
            "say_rtc()",
        )
    )
    await node.power_on()
    await node.wait_for(lambda: sum(event["code"] == "rtc" for event in node.console) == 4)
    await node.cut_power()
    await node.power_on()
    await node.wait_state("halted")
    heard = [event["m"] for event in node.console if event["code"] == "rtc"]
    assert heard == ["", "kept", "kept", "kept", ""]


RTC_LIMIT = """
import machine
rtc = machine.RTC()
rtc.memory(bytes(2048))
print(len(rtc.memory()))
rtc.memory(bytes(2049))
"""


async def test_rtc_memory_has_2048_bytes(make_node):
    node = make_node(RTC_LIMIT)
    await node.power_on()
    await node.wait_state("halted")
    assert node.console.lines[0] == "2048"
    assert "ValueError" in node.console.lines[-1]


NVS = """
import esp32, machine, json, time
nvs = esp32.NVS("test")
def get(key):
    try:
        return nvs.get_i32(key)
    except OSError as error:
        return list(error.args)
def fails(what, *arguments):
    try:
        what(*arguments)
    except (OSError, OverflowError) as error:
        print(error.args[0])
print(json.dumps({"code": "nvs", "a": get("a"), "b": get("b")}))
"""
NVS_COMMIT = """
nvs.set_i32("a", -5)
nvs.commit()
nvs.set_i32("b", 7)
print(json.dumps({"code": "set", "b": get("b")}))
time.sleep(60)
"""
MISSING = [-0x1102, "ESP_ERR_NVS_NOT_FOUND"]


async def test_nvs_is_durable_only_at_commit(make_node):
    node = make_node(NVS + NVS_COMMIT)
    await node.power_on()
    assert await node.wait_event("nvs") == {"code": "nvs", "a": MISSING, "b": MISSING}
    assert (await node.wait_event("set"))["b"] == 7
    for change in (node.cut_power, node.stop):
        mark = node.console.total
        await change()
        await node.power_on()
        assert await node.wait_event("nvs", after=mark) == {"code": "nvs", "a": -5, "b": MISSING}
        await node.wait_event("set", after=mark)
    assert node.board.nvs.durable == {"test/a": (-5 & 0xFFFFFFFF).to_bytes(4, "little")}
    await node.cut_power()
    node.erase_nvs()
    mark = node.console.total
    await node.power_on()
    assert (await node.wait_event("nvs", after=mark))["a"] == MISSING


NVS_LIMITS = r"""
nvs.set_blob("k", b"\x00\x01blob")
b = bytearray(16)
n = nvs.get_blob("k", b)
print(n, bytes(b[:n]))
nvs.set_i32("low", -(1 << 31))
print(nvs.get_i32("low"))
fails(nvs.get_blob, "k", bytearray(3))
fails(nvs.get_i32, "k")
fails(nvs.get_blob, "low", b)
fails(nvs.set_i32, "a key of 16 char", 1)
fails(nvs.set_i32, "x", 1 << 31)
fails(nvs.erase_key, "none")
nvs.erase_key("k")
fails(nvs.get_blob, "k", b)
"""


async def test_nvs_blobs_and_limits(make_node):
    node = make_node(NVS + NVS_LIMITS)
    await node.power_on()
    await node.wait_state("halted")
    missing, too_short, long_key = (str(-code) for code in (0x1102, 0x110C, 0x1109))
    assert list(node.console.lines) == [
        r"6 b'\x00\x01blob'",
        "-2147483648",
        too_short,
        missing,
        missing,
        long_key,
        "value does not fit in 32 bits",
        missing,
        missing,
    ]


CUT = """
import time
kept = open("/kept", "wb")
kept.write(b"k" * 5000)
kept.flush()
lost = open("/lost", "wb")
lost.write(b"l" * 50)
print("written")
time.sleep(60)
"""


async def test_power_cut_keeps_a_flushed_file_and_loses_an_unflushed_one(make_node):
    node = make_node(CUT)
    await node.power_on()
    await node.wait_line("written")
    with pytest.raises(RigError, match="cut_power"):
        node.read_file("/kept")
    await node.cut_power()
    await node.cut_power()
    assert node.state == "off"
    assert node.read_file("/kept") == b"k" * 5000
    assert node.list_files().get("/lost", 0) == 0


WRITER = """
import os
n = 0
while True:
    n += 1
    with open("/new", "wb") as file:
        file.write(b"%06d" % n * 20)
    os.rename("/new", "/data")
    print("wrote", n)
"""


@pytest.mark.parametrize("torn", [0.0, 0.4, 1.0])
async def test_power_cut_in_the_middle_of_a_flash_operation(make_node, torn: float):
    node = make_node(WRITER)
    await node.power_on()
    await node.wait_line("wrote 3")
    for operations in (1, 2, 5, 13):
        node.flash.cut_after(operations, torn)
        await node.wait_state("off")
        written = int(node.console.lines[-1].split()[1])
        data = node.read_file("/data")
        assert data in {b"%06d" % number * 20 for number in (written, written + 1)}
        node.console.lines.clear()
        await node.power_on()
        await node.wait_line("wrote 1")
    assert node.flash.overwrites == 0
    assert sum(node.flash.erases) > 0


async def test_blank_flash_is_formatted_and_a_damaged_one_halts_the_board(make_node):
    node = make_node("print('runs')")
    await node.provision()
    image = node.folder / "flash.img"
    image.write_bytes(b"\xff" * image.stat().st_size)
    await node.power_on()
    await node.wait_state("halted")
    assert list(node.console.lines) == []
    await node.stop()
    assert node.list_files() == {}
    image.write_bytes(b"\x00" * image.stat().st_size)
    await node.power_on()
    await node.wait_state("halted")
    assert "corrupted" in node.console.text()


ID = "import machine, json\nprint(json.dumps({'code': 'id', 'id': machine.unique_id().hex()}))"


async def test_nodes_have_ids_of_their_own_that_stay(make_node):
    ids = []
    for name in ("n1", "n2"):
        node = make_node(ID, name=name)
        await node.power_on()
        first = (await node.wait_event("id"))["id"]
        mark = node.console.total
        await node.wait_state("halted")
        await node.stop()
        await node.power_on()
        assert (await node.wait_event("id", after=mark))["id"] == first == node.unique_id.hex()
        ids.append(first)
    assert ids[0] != ids[1]
    assert {len(each) for each in ids} == {12}


async def test_deadline_names_what_did_not_come(make_node):
    node = make_node("print('hello there')")
    await node.power_on()
    await node.wait_state("halted")
    with pytest.raises(RigError, match=r"(?s)event 'never'.*halted after 1 boots.*hello there"):
        await node.wait_event("never", timeout_s=0.01)


def ended(pid: int, timeout_s: float) -> bool:
    """Whether a process that is no child of ours ends in time."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], timeout_s)[0])
    finally:
        os.close(watched)


HOST = """
import asyncio, sys
from pathlib import Path
from simpang.rig import VirtualNode

async def main():
    folder, firmware, cache = map(Path, sys.argv[1:])
    node = VirtualNode("n", folder, firmware=firmware, blocks=64, cache=cache)
    await node.power_on()
    await node.wait_line("busy")
    print(node.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_virtual_boards_die_with_a_host_that_is_killed(tmp_path: Path, cache: Path):
    firmware = tmp_path / "firmware"
    firmware.mkdir()
    (firmware / "main.py").write_text("print('busy')\nwhile True:\n    pass\n")
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(tmp_path / "n"), str(firmware), str(cache)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
    )
    assert host.stdout is not None
    board = int(host.stdout.readline())
    host.kill()
    host.wait()
    host.stdout.close()
    assert ended(board, 10)


async def test_stop_leaves_no_process_and_no_path(make_node):
    node = make_node("while True: pass", link=1)
    await node.power_on()
    pid = node.pid
    assert os.path.lexists(node.url)
    await node.stop()
    await node.stop()
    assert ended(pid, 0)
    assert not os.path.lexists(node.url)
