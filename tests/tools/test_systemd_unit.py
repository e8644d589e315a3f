"""The systemd unit as systemd judges it, and the gateway under the unit's own filter of system calls."""

import ctypes
import grp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simpang.install.templates import STATE, sysusers, udev_rules, unit
from simpang_gateway import keystore

DEADLINE_S = 30
MOST_EXPOSED = 1.5
CLOSED = {
    "AmbientCapabilities", "CapabilityBoundingSet", "KeyringMode", "LockPersonality",
    "MemoryDenyWriteExecute", "NoNewPrivileges", "NotifyAccess", "PrivateMounts", "PrivateTmp",
    "PrivateUsers", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname",
    "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc",
    "ProtectSystem", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    "SystemCallArchitectures", "SystemCallFilter", "UMask", "User",
}  # fmt: skip
"""What the unit must keep closed, by the names of systemd-analyze."""


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {name}")
        pytest.skip(f"{name} is not here")
    return found


def _unit_file(folder: Path, state: Path = STATE) -> Path:
    path = folder / "simpang-gateway.service"
    path.write_text(unit(Path(sys.executable), Path("/etc/simpang/gateway.toml"), state))
    return path


def _analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [_tool("systemd-analyze"), "--no-pager", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


@pytest.mark.parametrize("state", [STATE, Path("/data/simpang"), Path("/data/100 %/simpang")])
def test_verify_has_nothing_to_say(tmp_path: Path, state: Path) -> None:
    # It exits with 0 even for keys that it does not know: only silence counts.
    done = _analyze("verify", str(_unit_file(tmp_path, state)))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_verify_would_speak_of_a_misspelt_key(tmp_path: Path) -> None:
    path = _unit_file(tmp_path)
    path.write_text(path.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    done = _analyze("verify", str(path))
    assert "NoNewPrivilege" in done.stdout + done.stderr


def test_exposure_is_small(tmp_path: Path) -> None:
    done = _analyze("security", "--offline=true", str(_unit_file(tmp_path)))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stdout + done.stderr
    assert float(exposure[1]) <= MOST_EXPOSED
    # One of them alone would still leave it below that.
    open_ = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("✗")}
    assert not {name for name in open_ if name.partition("=")[0] in CLOSED}, open_


def test_every_setting_stands_once_and_no_hole_is_left() -> None:
    lines = [line for line in unit(Path("/usr/bin/python3"), Path("/c.toml")).splitlines() if "=" in line]
    settings = [line for line in lines if not line.startswith(("#", "DeviceAllow=", "SystemCallFilter="))]
    names = [line.partition("=")[0] for line in settings]
    assert len(names) == len(set(names))
    assert not re.search(r"@[a-z]+@", "".join(settings) + sysusers() + udev_rules())


def test_sysusers_makes_the_user_in_an_empty_image(tmp_path: Path) -> None:
    tool = _tool("systemd-sysusers")
    if os.geteuid():
        pytest.skip("making a user, even in an image, needs root")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "group").write_text("root:x:0:\ndialout:x:20:\n")
    (tmp_path / "simpang.conf").write_text(sysusers())
    subprocess.run(
        [tool, f"--root={tmp_path}", str(tmp_path / "simpang.conf")], check=True, timeout=DEADLINE_S
    )
    passwd = (tmp_path / "etc" / "passwd").read_text()
    assert re.search(r"^simpang:x:\d+:\d+:Simpang gateway:/var/lib/simpang:/usr/sbin/nologin$", passwd, re.M)
    groups = (tmp_path / "etc" / "group").read_text()
    assert "dialout:x:20:simpang" in groups
    assert re.search(r"^simpang:x:\d+:", groups, re.M)


# ---- the real filter, without systemd

# Loads what the unit allows through libseccomp, as systemd does, forbids memory that is writable and
# executable, and becomes the gateway.
FILTERED = """
import ctypes, errno, json, sys
allowed, config = json.loads(sys.argv[1]), sys.argv[2]
lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
lib.seccomp_init.restype = ctypes.c_void_p
ERRNO, ALLOW = 0x00050000 | errno.EPERM, 0x7FFF0000
class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
MASKED_EQ = 7
def load(default, rules):
    context = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
    for action, name, compare in rules:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            continue
        array = (Compare * max(1, len(compare)))(*compare)
        lib.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(compare), array)
    assert lib.seccomp_load(context) == 0
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
load(ALLOW, [
    (ERRNO, "mmap", [Compare(2, MASKED_EQ, 6, 6)]),
    (ERRNO, "mprotect", [Compare(2, MASKED_EQ, 4, 4)]),
    (ERRNO, "pkey_mprotect", [Compare(2, MASKED_EQ, 4, 4)]),
])
load(ERRNO, [(ALLOW, name, []) for name in allowed])
import os
os.execv(sys.executable, [sys.executable, "-I", *json.loads(sys.argv[3]), "--config", config])
"""


def _allowed() -> list[str]:
    """The system calls that the unit's SystemCallFilter= and ProtectClock= leave."""
    sets: dict[str, list[str]] = {}
    name = ""
    for line in _analyze("syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            name = line.strip()
            sets[name] = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            sets[name].append(line.strip())

    def whole(entry: str) -> set[str]:
        if not entry.startswith("@"):
            return {entry}
        return {call for inner in sets[entry] for call in whole(inner)}

    text = unit(Path("/p"), Path("/c"))
    allowed = whole("@default")
    for value in re.findall(r"^SystemCallFilter=(.*)$", text, re.M):
        calls = {call for entry in value.removeprefix("~").split() for call in whole(entry)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    if "ProtectClock=yes" in text:
        allowed -= whole("@clock")
    return sorted(allowed)


def _start_filtered(program: list[str], config: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", FILTERED, json.dumps(_allowed()), str(config), json.dumps(program)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


LOOK = """
import errno, os, signal, sys, threading
sys.path[:0] = {path!r}
from pathlib import Path
from simpang_gateway.clock import kernel_synced
try:
    kernel_synced()
    print("the kernel answered")
except OSError as error:
    print("kernel:", errno.errorcode[error.errno])

def look():
    from simpang_gateway.control import request
    from simpang_gateway.errors import SimpangError
    patience = threading.Event()
    for _ in range(400):
        try:
            status = request(Path({socket!r}), "status")
            if status["store"]["rows"] is not None:
                break
        except SimpangError:
            pass
        patience.wait(0.05)
    print(status["store"]["healthy"], sorted(alarm["code"] for alarm in status["alarms"]))
    os.kill(os.getpid(), signal.SIGTERM)

from simpang_gateway.__main__ import main
threading.Thread(target=look).start()
sys.exit(main(sys.argv[1:]))
"""


def test_gateway_runs_under_the_units_own_filter(tmp_path: Path) -> None:
    _tool("systemd-analyze")
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not here")
    keystore.create(tmp_path / "state", "semarang-1")
    config = tmp_path / "gateway.toml"
    config.write_text(
        '[gateway]\nsite = "semarang-1"\nname = "gw-1"\nstate = "state"\n[log]\npath = "events.jsonl"\n'
        '[[port]]\nname = "line1"\nurl = "/nowhere"\n[[uplink]]\nname = "c"\nhost = "127.0.0.1"\nport = 1\n'
        "tls = true\n"
        f'[control]\ngroup = "{grp.getgrgid(os.getegid()).gr_name}"\n'
    )
    program = LOOK.format(path=sys.path, socket=str(tmp_path / "state" / "control.sock"))
    done = _start_filtered(["-c", program], config)
    assert done.returncode == 0, done.stderr + done.stdout
    kernel, status = done.stdout.splitlines()
    # ProtectClock= forbids even to ask; the gateway then asks systemd-timedated, or says that nobody tells.
    assert kernel == "kernel: EPERM"
    assert status.startswith("True ") and "port.missing" in status
