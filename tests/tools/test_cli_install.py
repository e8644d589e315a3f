"""`simpang gateway install` into the folder of an image: what it says, it does; twice is once; and back."""

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from simpang.cli import run
from simpang.install import steps
from simpang.install.actions import MARK, File
from simpang_gateway import keystore
from simpang_gateway.config import load, parse

IMAGE_PYTHON = "/opt/simpang/bin/python"
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-sysusers") is None, reason="needs root and systemd's tools"
)
DUE = [
    "write /etc/sysusers.d/simpang.conf  (mode 0644, root:root)",
    "run systemd-sysusers simpang.conf",
    "make folder /etc/simpang  (mode 0750, root:simpang)",
    "write /etc/simpang/gateway.toml  (mode 0640, root:simpang)",
    "make folder /var/lib/simpang  (mode 0700, simpang:simpang)",
    "make root.key and registry.json in /var/lib/simpang",
    "write /etc/udev/rules.d/61-simpang.rules  (mode 0644, root:root)",
    "write /etc/systemd/system/simpang-gateway.service  (mode 0644, root:root)",
    "run systemctl enable simpang-gateway.service",
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc" / "group").write_text("root:x:0:\ndialout:x:20:\n")
    return root


def _install(
    image: Path, capsys: pytest.CaptureFixture[str], *more: str, expected: int = 0
) -> dict[str, Any]:
    status = run(["gateway", "install", "--root", str(image), "--python", IMAGE_PYTHON, "--json", *more])
    out, error = capsys.readouterr()
    assert status == expected, error
    return json.loads(out) if not status else {"error": error}


def _due(report: dict[str, Any]) -> list[str]:
    return [step["action"] for step in report["actions"] if step["due"]]


def _tree(image: Path) -> dict[str, tuple[int, int, int, bytes]]:
    found = {}
    for path in sorted(image.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(image))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def test_dry_run_needs_no_root_and_changes_nothing(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = _tree(image)
    report = _install(image, capsys, "--site", "semarang-1", "--dry-run")
    assert _due(report) == DUE
    assert _tree(image) == before
    contents = {step["action"].split()[1]: step["content"] for step in report["actions"]}
    assert f"ExecStart={IMAGE_PYTHON} -I -m simpang_gateway" in contents[str(steps.UNIT_FILE)]
    config = parse(contents[str(steps.CONFIG_FILE)], steps.CONFIG_FILE)
    assert (config.control.group, config.metrics.listen) == ("simpang", "127.0.0.1:9464")
    assert str(config.control_socket) == "/run/simpang/control.sock"


@NEEDS_ROOT
def test_dry_run_says_what_is_then_done(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = _install(image, capsys, "--site", "semarang-1", "--dry-run")
    done = _install(image, capsys, "--site", "semarang-1")
    assert told["actions"] == done["actions"]
    for step in told["actions"]:
        verb, path = step["action"].split()[:2]
        if verb == "write":
            file = image / path.lstrip("/")
            assert file.read_text() == step["content"]
            assert f"mode {stat.S_IMODE(file.stat().st_mode):04o}" in step["action"]
    ids = steps.known_user(image, "simpang")
    assert ids is not None
    state = image / "var/lib/simpang"
    for path, mode in ((state, 0o700), (state / "root.key", 0o600), (state / "registry.json", 0o600)):
        status = path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*ids, mode)
    config = image / "etc/simpang/gateway.toml"
    assert (config.stat().st_uid, config.stat().st_gid) == (0, ids[1])
    wants = image / "etc/systemd/system/multi-user.target.wants/simpang-gateway.service"
    assert os.readlink(wants) == str(steps.UNIT_FILE)
    assert keystore.read_registry(state).site == load(config).gateway.site == "semarang-1"


@NEEDS_ROOT
def test_restored_gateway_is_given_to_the_service(
    image: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # As `simpang gateway restore --to /etc/simpang --state /var/lib/simpang` leaves it, run by root.
    state, folder = image / "var/lib/simpang", image / "etc/simpang"
    keystore.create(state, "semarang-1")
    number, key = keystore.KeyStore(state, "semarang-1").add_node("Depok")
    keystore.write_key_file(keystore.default_key_path(state, number), key)
    (folder / "secrets").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / "secrets" / "city.password").write_text("hunter2\n")
    (folder / "gateway.toml").write_text(
        '[gateway]\nsite = "semarang-1"\nname = "gw"\nstate = "/var/lib/simpang"\n'
    )
    for path in (folder / "gateway.toml", folder / "secrets" / "city.password"):
        path.chmod(0o600)
    root_key = (state / "root.key").read_bytes()
    report = _install(image, capsys)
    assert "give /var/lib/simpang  (simpang:simpang)" in _due(report)
    ids = steps.known_user(image, "simpang")
    assert ids is not None
    for path in [state, *state.rglob("*"), folder / "secrets", folder / "secrets" / "city.password"]:
        assert (path.stat().st_uid, path.stat().st_gid) == ids, path
    assert stat.S_IMODE((folder / "secrets" / "city.password").stat().st_mode) == 0o600
    for path, mode in ((folder, 0o750), (folder / "gateway.toml", 0o640)):
        status = path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, ids[1], mode)
    assert (state / "root.key").read_bytes() == root_key
    assert _due(_install(image, capsys)) == []


@NEEDS_ROOT
def test_second_run_changes_nothing_and_an_update_only_what_is_old(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(image, capsys, "--site", "semarang-1")
    before = _tree(image)
    assert _due(_install(image, capsys)) == []
    assert _due(_install(image, capsys, "--site", "another-site")) == []  # what is there decides
    assert _tree(image) == before
    unit = image / "etc/systemd/system/simpang-gateway.service"
    unit.write_text(f"# {MARK} of an earlier release\n")
    assert [action.split()[1] for action in _due(_install(image, capsys))] == [str(steps.UNIT_FILE)]
    assert _tree(image) == before


@NEEDS_ROOT
def test_undo_keeps_data_and_purge_does_not(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(_tree(image))
    _install(image, capsys, "--site", "semarang-1")
    key = (image / "var/lib/simpang/root.key").read_text()
    _install(image, capsys, "--undo")
    assert not (image / "etc/systemd/system/simpang-gateway.service").exists()
    assert not list(image.rglob("*.rules"))
    assert not os.path.lexists(image / "etc/systemd/system/multi-user.target.wants/simpang-gateway.service")
    assert (image / "var/lib/simpang/root.key").read_text() == key
    _install(image, capsys)  # and back again, with the same keys
    assert (image / "var/lib/simpang/root.key").read_text() == key
    _install(image, capsys, "--undo", "--purge", "--purge")
    left = {path for path in set(_tree(image)) - before if (image / path).is_file()}
    # systemd-sysusers makes the account files; their lock and backups are its own.
    accounts = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/.pwd.lock")
    assert not {path for path in left if not path.startswith(accounts)}
    assert not (image / "var/lib/simpang").exists()


@NEEDS_ROOT
def test_purge_asks_and_does_nothing_without_a_yes(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(image, capsys, "--site", "semarang-1")
    monkeypatch.setattr("click.confirm", _no)
    before = _tree(image)
    assert run(["gateway", "install", "--root", str(image), "--undo", "--purge"]) == 130
    assert _tree(image) == before


def _no(*_: object, **__: object) -> None:
    import click

    raise click.Abort


@NEEDS_ROOT
def test_failure_in_the_middle_names_the_step_and_the_next_run_goes_on(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = File.act

    def act(self: File, root: Path) -> None:
        if self.path == steps.RULES_FILE:
            raise OSError(28, "No space left on device")
        real(self, root)

    monkeypatch.setattr(File, "act", act)
    report = _install(image, capsys, "--site", "semarang-1", expected=2)
    assert "install.failed: step 9 of " in report["error"]
    assert "write /etc/udev/rules.d/61-simpang.rules" in report["error"]
    assert "No space left on device" in report["error"]
    assert not list(image.rglob("*.tmp"))
    monkeypatch.undo()
    assert _due(_install(image, capsys)) == DUE[6:]


@NEEDS_ROOT
def test_files_of_others_and_half_a_state_are_left_alone(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = image / "etc/systemd/system/simpang-gateway.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/usr/local/bin/mine\n")
    before = _tree(image)
    assert "install.foreign: " in _install(image, capsys, "--site", "semarang-1", expected=2)["error"]
    assert _tree(image) == before
    unit.unlink()
    state = image / "var/lib/simpang"
    state.mkdir(parents=True)
    (state / "root.key").write_text("0" * 64)
    assert "install.half_state: " in _install(image, capsys, "--site", "semarang-1", expected=2)["error"]


@NEEDS_ROOT
def test_configuration_of_another_place_is_taken_over(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mine.toml"
    source.write_text('[gateway]\nsite = "demak-1"\nname = "g"\nstate = "/data/simpang"\n')
    _install(image, capsys, "--config-from", str(source))
    assert (image / "etc/simpang/gateway.toml").read_text() == source.read_text()
    assert keystore.read_registry(image / "data/simpang").site == "demak-1"
    assert "ReadWritePaths=/data/simpang" in (image / str(steps.UNIT_FILE).lstrip("/")).read_text()
    source.write_text(source.read_text() + "[store]\nmax_mb = 64\n")
    error = _install(image, capsys, "--config-from", str(source), expected=2)["error"]
    assert "install.config: " in error


@NEEDS_ROOT
def test_what_was_restored_there_is_given_to_the_user_and_kept(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, folder = image / "var/lib/simpang", image / "etc/simpang"
    keystore.create(state, "semarang-1")
    (folder / "secrets").mkdir(parents=True, mode=0o700)
    (folder / "secrets" / "city").write_text("secret\n")
    (folder / "secrets" / "city").chmod(0o600)
    (folder / "gateway.toml").write_text(
        '[gateway]\nsite = "semarang-1"\nname = "g"\nstate = "/var/lib/simpang"\n'
        '[[uplink]]\nname = "c"\nhost = "h"\nusername = "u"\npassword_file = "secrets/city"\n'
        'ca_file = "/etc/ssl/ca.pem"\n'
    )
    (image / "etc/ssl").mkdir()
    (image / "etc/ssl/ca.pem").write_text("of the system")
    (folder / "gateway.toml").chmod(0o600)
    key = (state / "root.key").read_text()
    told = _due(_install(image, capsys, "--dry-run"))
    assert _due(_install(image, capsys)) == told
    assert "give /etc/simpang/secrets  (simpang:simpang)" in told
    assert "give /var/lib/simpang  (simpang:simpang)" in told
    ids = steps.known_user(image, "simpang")
    for path in (state, state / "root.key", state / "registry.json", folder / "secrets/city"):
        assert (path.stat().st_uid, path.stat().st_gid) == ids
    assert stat.S_IMODE((folder / "secrets/city").stat().st_mode) == 0o600
    assert (image / "etc/ssl/ca.pem").stat().st_uid == 0
    assert stat.S_IMODE((folder / "gateway.toml").stat().st_mode) == 0o640
    assert (state / "root.key").read_text() == key
    assert _due(_install(image, capsys)) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "install.site"),
        (["--site", "Not A Name"], "config.value"),
        (["--config-from", "/nowhere"], "config.unreadable"),
        (["--purge"], "cli.usage"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_done(
    image: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
) -> None:
    assert f"{code}: " in _install(image, capsys, *arguments, expected=2)["error"]


def test_relative_state_folder_is_refused(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mine.toml"
    source.write_text('[gateway]\nsite = "demak-1"\nname = "g"\nstate = "state"\n')
    error = _install(image, capsys, "--dry-run", "--config-from", str(source), expected=2)["error"]
    assert "install.state: " in error


def test_without_root_and_without_systemd_it_refuses(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = _install(image, capsys, "--site", "semarang-1", expected=2)["error"]
    assert "install.root: " in error and "sudo" in error
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "install.no_systemd: " in _install(image, capsys, "--site", "semarang-1", expected=2)["error"]


def test_interpreter_that_the_service_cannot_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from simpang_gateway.errors import SimpangError

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    for hidden in ("/home/pi/.venv/bin/python", "/root/x/python", "/tmp/v/bin/python"):
        with pytest.raises(SimpangError) as caught:
            steps.check_machine(Path("/"), Path(hidden), steps.templates.STATE)
        assert caught.value.code == "install.python"
