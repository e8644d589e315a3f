"""Makes .venv ready for `make demo` or `make test`: standard library only, started by scripts/setup.

Everything installed is pinned by hash in requirements/*.txt. A stamp per set is written last; it names the
place, the Python and the content of the files it was made from, so that a later run starts its program at
once, a changed file leads to an update in place, and an interrupted install to a new .venv.
"""

import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

ROOT = Path(__file__).resolve().parent.parent
SETS = ("demo", "dev")  # dev holds everything that demo has
# Platforms with a wheel of the MicroPython VM: the marker in pyproject.toml says the same.
VM_PLATFORMS = {("linux", "x86_64"), ("darwin", "arm64")}

# What pip says when it fails, and what helps. The first match counts.
PIP_FAILURES = (
    ("No space left on device", "The disk is full.", "free 400 MB, then run the same command again"),
    (
        "DO NOT MATCH THE HASHES",
        "A package differs from the one that was pinned, so it was not installed.",
        "do not go round this: check which package source pip is set to use (pip config list)",
    ),
    (
        r"Failed to establish|NameResolution|Temporary failure|Network is unreachable|timed out|ProxyError|"
        r"SSLError|Max retries|ConnectionError",
        "The package source could not be reached.",
        "check the network (and HTTPS_PROXY, if there is a proxy), then run the same command again",
    ),
    (
        r"No matching distribution|Could not find a version",
        "There is no ready-made package for this Python and platform, or the package source was not reached.",
        "check the network; use Python 3.11 to 3.14 on a 64-bit system (make PYTHON=/path/to/python3 ...)",
    ),
)


class SetupError(Exception):
    """Why .venv cannot be made ready, and what to do next."""

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__(f"{cause}\nNext: {next_step}")


class Progress:
    """One line a step on paper, one moving line on a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._said = 0.0

    def step(self, text: str) -> None:
        """Prints a line that stays."""
        self._wipe()
        print(f"setup: {text}", file=self._out, flush=True)
        self._said = time.monotonic()

    def move(self, text: str) -> None:
        """Shows where a long step stands: at once on a terminal, every five seconds elsewhere."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:<{width}}", end="", file=self._out, flush=True)
        elif time.monotonic() - self._said >= 5:
            self.step(text.strip())

    def _wipe(self) -> None:
        if self._live:
            print(f"\r{'':<{shutil.get_terminal_size().columns - 1}}\r", end="", file=self._out)


class Environment:
    """The .venv of one checkout and the stamps in it.

    root is the checkout; it holds pyproject.toml and requirements/.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.log = root / ".cache" / "setup.log"
        self._mark = self.folder / "made-by-make"

    def _digest(self, *names: str) -> str:
        total = hashlib.sha256()
        for name in names:
            total.update(hashlib.sha256((self.root / name).read_bytes()).digest())
        return total.hexdigest()

    def _wanted(self, name: str) -> dict[str, str]:
        files = [f"requirements/{name}.txt", "requirements/build.txt"]
        if name == "dev":
            files.append("requirements/typings.txt")
        return {
            "place": f"{self.root} {sys.base_prefix} {sys.version_info[0]}.{sys.version_info[1]}",
            "project": self._digest("pyproject.toml"),
            "packages": self._digest(*files),
        }

    def _stamp(self, name: str) -> Path:
        return self.folder / f"{name}.stamp"

    def _read(self, name: str) -> dict[str, str]:
        try:
            found = json.loads(self._stamp(name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def ready(self, name: str) -> bool:
        """Whether the set is installed from the files as they are now."""
        if not (self.folder / "bin" / "python").exists() or (name == "dev" and not self._typings_there()):
            return False
        complete = SETS[SETS.index(name) :]
        return any(self._read(each) == self._wanted(each) for each in complete)

    def _typings_there(self) -> bool:
        return (self.root / "typings" / "machine.pyi").exists()

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[int]:
        """Lets one setup at a time work on this checkout; yields the lock's file descriptor.

        pip inherits the descriptor: should this program be killed, the lock holds until pip has ended.
        """
        path = self.root / ".cache" / "setup.lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.step("another make is setting up .venv: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()

    def prepare(self, name: str, progress: Progress, lock: int) -> None:
        """Installs the set; the caller holds the lock. Raises SetupError."""
        stamps = [stamp for stamp in map(self._read, SETS) if stamp]
        wanted = self._wanted(name)
        reusable = any(stamp.get("place") == wanted["place"] for stamp in stamps)
        linked = any(stamp.get("project") == wanted["project"] for stamp in stamps) and reusable
        # From here on an interrupted install leaves no stamp.
        for each in SETS:
            self._stamp(each).unlink(missing_ok=True)
        if not reusable:
            self._make_new(progress)
        self.log.write_text("", "utf-8")
        files = [f"requirements/{name}.txt", "requirements/build.txt"]
        pip = Pip(self, progress, lock)
        pip.run(f"packages for `{name}`", "--require-hashes", files=files)
        if not linked:
            pip.run("simpang itself", "--no-deps", "--no-build-isolation", "--editable", ".")
        if name == "dev":
            self._install_typings(pip)
        partial = self._stamp(name).with_suffix(".new")
        partial.write_text(json.dumps(wanted, indent=1) + "\n", "utf-8")
        partial.replace(self._stamp(name))

    def _make_new(self, progress: Progress) -> None:
        if self.folder.is_symlink() or (self.folder.exists() and not self._mark.exists()):
            raise SetupError(
                f"{self.folder} is there already and was not made by make, so it is left as it is.",
                "move it away, or let `make clean` remove it; then run the same command again",
            )
        if self.folder.exists():
            progress.step("removing a .venv that was left unfinished or belongs to another place or Python")
            # The mark goes last, so that a removal that is cut short can be taken up again.
            for entry in self.folder.iterdir():
                if entry != self._mark:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        progress.step(f"virtual environment .venv, Python {sys.version.split()[0]}")
        self.folder.mkdir(exist_ok=True)
        self._mark.touch()
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(self.folder)],
            env=quiet_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if made.returncode:
            raise SetupError(
                f"Python could not make .venv:\n{made.stdout.strip()}",
                "free disk space if it is short; on Debian: sudo apt install python3-venv",
            )

    def _install_typings(self, pip: "Pip") -> None:
        # Apart from .venv: there the stubs would hide the standard library from the type checker.
        fresh, final = self.root / ".cache" / "typings", self.root / "typings"
        shutil.rmtree(fresh, ignore_errors=True)
        options = ("--no-deps", "--require-hashes", "--target", str(fresh))
        pip.run("type stubs of the node's modules", *options, files=["requirements/typings.txt"])
        shutil.rmtree(final, ignore_errors=True)
        fresh.replace(final)


class Pip:
    """Runs the pip of .venv, shows how far it is and explains its failures."""

    def __init__(self, environment: Environment, progress: Progress, lock: int) -> None:
        self._environment = environment
        self._progress = progress
        self._lock = lock

    def run(self, what: str, *options: str, files: Sequence[str] = ()) -> None:
        """Runs `pip install` with the options and requirement files. Raises SetupError."""
        python = str(self._environment.folder / "bin" / "python")
        # Wheels only: a fresh machine has no compiler, and a source release would run its code to install.
        command = [python, "-m", "pip", "install", "--only-binary=:all:", *options]
        total = 0
        for name in files:
            command += ["-r", name]
            pins = (self._environment.root / name).read_text("utf-8")
            total += len(re.findall(r"^\S+==", pins, re.MULTILINE))
        self._progress.step(f"{what}{f', {total} pinned' if total else ''}")
        status, lines = self._follow(command, Tally(what, total))
        with self._environment.log.open("a", encoding="utf-8") as log:
            print(*lines, sep="\n", file=log)
        if status:
            self._fail(what, lines)

    def _follow(self, command: list[str], tally: "Tally") -> tuple[int, list[str]]:
        """Runs pip to its end, showing the tally; returns its exit status and its lines."""
        lines: list[str] = []
        pip = subprocess.Popen(
            command,
            cwd=self._environment.root,
            env=quiet_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self._lock,),
        )
        assert pip.stdout is not None
        try:
            rest = b""
            while True:
                if select.select([pip.stdout], [], [], 0.25)[0]:
                    data = os.read(pip.stdout.fileno(), 65536)
                    if not data:
                        return pip.wait(), lines
                    *whole, rest = (rest + data).split(b"\n")
                    for line in whole:
                        lines.append(line.decode("utf-8", "replace"))
                        tally.take(lines[-1])
                self._progress.move(tally.line())
        finally:
            pip.stdout.close()
            if pip.poll() is None:
                pip.terminate()
                pip.wait()

    def _fail(self, what: str, lines: list[str]) -> NoReturn:
        text = "\n".join(lines)
        cause, next_step = next(
            ((cause, next_step) for pattern, cause, next_step in PIP_FAILURES if re.search(pattern, text)),
            ("pip gave the reason above.", "mend it, then run the same command again"),
        )
        ending = "\n".join("  | " + line for line in lines[-8:])
        log = self._environment.log.relative_to(self._environment.root)
        told = f"installing {what} failed. pip's last lines (all: {log}):\n{ending}\n{cause}"
        raise SetupError(told, next_step)


class Tally:
    """Reads pip's lines and says how many packages are found and what goes on."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._seen = 0
        self._now = ""
        self._start = time.monotonic()

    def take(self, line: str) -> None:
        """Counts one line of pip's output."""
        if named := re.match(r"(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9_.-]+)", line):
            self._seen += 1
            self._now = named[1]
        elif line.startswith("Ignoring "):
            self._total -= 1
        elif line.startswith("Installing collected packages"):
            self._seen = self._total
            self._now = "writing the files"

    def line(self) -> str:
        """Returns the line to show now."""
        elapsed_s = int(time.monotonic() - self._start)
        done = min(self._seen, self._total)
        bar = ""
        if self._total:
            bar = f"[{'#' * (20 * done // self._total):<20}] {done}/{self._total}"
        return f"  {self._what} {bar} {self._now} {elapsed_s} s"


def quiet_environment() -> dict[str, str]:
    """Returns this process's environment without what would send pip elsewhere than into .venv."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in {"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONHOME", "PYTHONPATH"}
    }
    quiet = ("PIP_NO_INPUT", "PIP_DISABLE_PIP_VERSION_CHECK")
    return kept | dict.fromkeys(quiet, "1") | {"PIP_USER": "0", "PIP_PROGRESS_BAR": "off"}


def check_platform(name: str, progress: Progress) -> None:
    """Raises SetupError where the set cannot be installed; tells what tests will miss."""
    if struct.calcsize("P") < 8:
        raise SetupError(
            "This Python is a 32-bit program, and the packages are made for 64-bit systems only.",
            "install the 64-bit edition of Raspberry Pi OS or Debian",
        )
    machine = os.uname().machine
    if (sys.platform, machine) in VM_PLATFORMS or shutil.which("micropython"):
        return
    cause = f"The virtual nodes need MicroPython, and there is no package of it for {sys.platform} {machine}."
    next_step = (
        "put `micropython` 1.24 or newer on PATH "
        "(Debian 13: sudo apt install micropython; elsewhere build its unix port)"
    )
    if name == "demo":
        raise SetupError(cause, next_step)
    progress.step(f"{cause}\nThe tests that need it will be skipped. Next: {next_step}")


def stop(_number: int, _frame: object) -> NoReturn:
    """Turns a termination signal into an orderly end, so that pip is ended too."""
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Returns 0 when the set named by the only argument is ready."""
    if len(arguments) != 1 or arguments[0] not in SETS:
        print(f"usage: scripts/setup {'|'.join(SETS)}", file=sys.stderr)
        return 2
    name = arguments[0]
    environment = Environment(ROOT)
    progress = Progress(sys.stderr)
    if environment.ready(name):
        return 0
    signal.signal(signal.SIGTERM, stop)
    try:
        check_platform(name, progress)
        with environment.locked(progress) as lock:
            if not environment.ready(name):
                started = time.monotonic()
                environment.prepare(name, progress, lock)
                progress.step(f"ready in {time.monotonic() - started:.0f} s")
    except SetupError as error:
        progress.step(str(error))
        return 2
    except KeyboardInterrupt:
        progress.step("stopped; the next make begins again")
        return 130
    except OSError as error:
        progress.step(f"{error}\nNext: see that this folder is yours and 400 MB are free, then try again")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
