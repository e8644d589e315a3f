"""`simpang demo` as its user runs it: data, sums, Ctrl-C, and nothing left behind."""

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DEADLINE_S = 30
MARK = "SIMPANG_DEMO_TEST"
COMMAND = "import sys; from simpang.cli import run; sys.exit(run(sys.argv[1:]))"
MAGNITUDES = {
    "pm1": (0, 300),
    "pm25": (1, 300),
    "pm10": (1, 400),
    "temperature": (15, 45),
    "humidity": (30, 100),
    "pressure": (990, 1030),
}


class Place:
    """Where a demo runs: present folder, temporary folder, and a mark by which its processes are known."""

    def __init__(self, folder: Path) -> None:
        self.cwd, self.tmp = folder / "cwd", folder / "tmp"
        self.cwd.mkdir()
        self.tmp.mkdir()
        # A module of the present folder must not stand in for one of Python's.
        (self.cwd / "json.py").write_text("raise SystemExit('the wrong json')\n")
        self.mark = uuid.uuid4().hex
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TMPDIR": str(self.tmp),
            MARK: self.mark,
            "TERM": "xterm",
        }

    def popen(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", COMMAND, "demo", *arguments],
            cwd=self.cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    def processes(self) -> dict[int, str]:
        """Command lines of all processes of this demo, by process id."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended, or belongs to somebody else
        return found

    def check_clean(self) -> None:
        assert self.processes() == {}
        assert list(self.tmp.iterdir()) == []
        assert [path.name for path in self.cwd.iterdir()] == ["json.py"]


@pytest.fixture
def place() -> Iterator[Place]:
    # A short path: that of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    place = Place(folder)
    yield place
    for number in place.processes():
        os.kill(number, signal.SIGKILL)
    shutil.rmtree(folder)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Reads lines up to the first that has `text`; the test's deadline ends a wait in vain."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} did not come: {read}{process.stderr and process.stderr.read()}")


@pytest.mark.timeout(90)
def test_three_nodes_deliver_everything_in_six_seconds(place):
    process = place.popen("--seconds", "6", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    place.check_clean()
    assert "\x1b" not in out + err
    assert "starting the broker" in err and "building the firmware" in err and "Made up" in err

    (line,) = out.splitlines()
    result = json.loads(line)
    assert (result["lost"], result["duplicates"], result["waiting"]) == (0, 0, 0)
    assert result["nodes"] == 3
    assert result["records"] == result["delivered"] == result["committed"]
    assert result["created"] == result["delivered"] + result["held"]
    # Boot, health, time, and at least one record of air, from each.
    assert result["delivered"] >= 3 * 4
    assert result["samples"] >= 3
    assert sorted(result["last"]) == ["1", "2", "3"]
    for node, message in result["last"].items():
        record = message["records"][-1]
        assert record["id"][0] == int(node)
        assert record["clock"] == "synced"
        for field, (least, most) in MAGNITUDES.items():
            for sample in record["samples"]:
                # On a machine that has much to do, an interval may pass without a frame of the sensor.
                assert sample[field] is None or least <= sample[field] <= most, (node, field)
    airs = {json.dumps(message["records"][-1]["samples"]) for message in result["last"].values()}
    assert len(airs) == 3

    page = (Path(__file__).resolve().parents[2] / "docs" / "demo.md").read_text(encoding="utf-8")
    assert [key for key in result if f"`{key}`" not in page] == []


def test_ctrl_c_ends_everything_in_order(place):
    process = place.popen()
    read = read_until(process, "PM2.5")
    # A terminal sends it to the whole group of processes.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    place.check_clean()
    assert "\x1b" not in read + out
    assert "0 lost, 0 duplicated" in out


def on_terminal(place: Place, act: Callable[[subprocess.Popen[str], str], bool]) -> tuple[int, str]:
    """Runs the demo on a terminal of 80 x 24, with `act(process, shown)` until it returns True.

    Returns the exit status and all that was shown.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = place.popen(stdout=slave)
    os.close(slave)
    shown, acted = b"", False
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # Linux's end of file: the last process has closed the terminal
            break
        if not data:
            break
        shown += data
        acted = acted or act(process, shown.decode(errors="replace"))
    os.close(master)
    assert process.stderr is not None
    err = process.stderr.read()
    return process.wait(DEADLINE_S), shown.decode() + err


def test_sigint_to_the_demo_alone_ends_the_live_table(place):
    def interrupt(process: subprocess.Popen[str], shown: str) -> bool:
        if "delivered" not in shown:
            return False
        os.kill(process.pid, signal.SIGINT)
        return True

    status, shown = on_terminal(place, interrupt)
    assert status == 0
    place.check_clean()
    assert "Simpang Lima" in shown and "PM2.5" in shown
    # The cursor was hidden and is there again.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Traceback" not in shown


def test_sigterm_while_it_starts_leaves_nothing(place):
    process = place.popen()
    read_until(process, "building the firmware")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    place.check_clean()


@pytest.mark.parametrize(("program", "name"), [("simpang_gateway", "gateway"), ("iotcore_broker", "broker")])
def test_a_program_that_dies_is_named_with_the_next_step(place, program, name):
    process = place.popen("--json")
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting for the first record" in line:
            break
    (victim,) = [number for number, command in place.processes().items() if program in command]
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (1, "")
    assert f"simpang: the {name} ended by itself, killed by signal SIGKILL." in err
    assert "Next: " in err
    place.check_clean()
