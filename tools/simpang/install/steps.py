"""What an installation consists of, and what undoes it."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from simpang_gateway import keystore
from simpang_gateway.errors import SimpangError

from . import templates
from .actions import MARK, Action, Call, Command, File, Folder, Gift, Removal, inside, known_user

USER = "simpang"
UNIT = "simpang-gateway.service"
UNIT_FILE = Path("/etc/systemd/system", UNIT)
RULES_FILE = Path("/etc/udev/rules.d/61-simpang.rules")
SYSUSERS_FILE = Path("/etc/sysusers.d/simpang.conf")
CONFIG_FOLDER = Path("/etc/simpang")
CONFIG_FILE = CONFIG_FOLDER / "gateway.toml"
# Where a restoration puts the files that the configuration names.
SECRETS = CONFIG_FOLDER / "secrets"

# ProtectHome= and PrivateTmp= hide these from the service.
_HIDDEN = re.compile(r"^/(home|root|run/user|tmp|var/tmp)(/|$)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to install; `config_text` None keeps the configuration that is there."""

    python: Path
    site: str
    state: Path
    config_text: str | None
    secrets: tuple[Path, ...] = ()
    """Files that the configuration names: only the gateway may read them."""


def install_plan(wanted: Wanted) -> list[Action]:
    """Return every step in order; some may be done already."""
    state = wanted.state

    def has_keys(root: Path) -> bool:
        return all(inside(root, state / name).exists() for name in (keystore.ROOT_KEY, keystore.REGISTRY))

    def make_keys(root: Path) -> None:
        keystore.create(inside(root, state), wanted.site)

    def enabled(root: Path) -> bool:
        return os.path.lexists(inside(root, Path("/etc/systemd/system/multi-user.target.wants", UNIT)))

    steps: list[Action] = [
        File(SYSUSERS_FILE, templates.sysusers(state)),
        Command(("systemd-sysusers", SYSUSERS_FILE.name), lambda root: known_user(root, USER) is not None),
        Folder(CONFIG_FOLDER, 0o750, "root", USER),
    ]
    if wanted.config_text is not None:
        steps.append(File(CONFIG_FILE, wanted.config_text, 0o640, "root", USER))
    else:
        steps.append(Gift(CONFIG_FILE, "root", USER, 0o640))
    # A CA file of the system stays the system's.
    own = [secret for secret in wanted.secrets if CONFIG_FOLDER in secret.parents]
    folders = sorted({SECRETS, *(secret.parent for secret in own)} - {CONFIG_FOLDER})
    steps += [Gift(path, USER, USER) for path in (*folders, *own)]
    steps += [
        Folder(state, 0o700, USER, USER),
        # What a restoration has put there belongs to whoever restored it.
        Gift(state, USER, USER),
        Call(f"make {keystore.ROOT_KEY} and {keystore.REGISTRY} in {state}", has_keys, make_keys),
        File(RULES_FILE, templates.udev_rules()),
    ]
    if shutil.which("udevadm"):
        steps += [
            Command(("udevadm", "control", "--reload"), only_live=True),
            Command(("udevadm", "trigger", "--subsystem-match=tty"), only_live=True),
        ]
    steps += [
        File(UNIT_FILE, templates.unit(wanted.python, CONFIG_FILE, state)),
        Command(("systemctl", "daemon-reload"), only_live=True),
        Command(("systemctl", "enable", UNIT), enabled),
    ]
    return steps


def undo_plan(state: Path, *, purge: bool) -> list[Action]:
    """Return what takes the service away again; with `purge` keys, registry, records and the user too."""

    def not_enabled(root: Path) -> bool:
        return not inside(root, UNIT_FILE).exists()

    steps: list[Action] = [
        Command(("systemctl", "stop", UNIT), not_enabled, only_live=True),
        Command(("systemctl", "disable", UNIT), not_enabled),
        Removal(UNIT_FILE),
        Command(("systemctl", "daemon-reload"), only_live=True),
        Removal(RULES_FILE),
        Removal(SYSUSERS_FILE),
    ]
    if purge:
        gone = [Removal(state), Removal(CONFIG_FOLDER)]
        user = Command(("userdel", USER), lambda root: known_user(root, USER) is None, only_live=True)
        steps += [*gone, user]
    return steps


def check_machine(root: Path, python: Path, state: Path) -> None:
    """Look for what would make an installation fail, before anything is done.

    Raises SimpangError: install.root, install.no_systemd, install.python, install.foreign, config.value.
    """
    if os.geteuid() != 0:
        raise SimpangError("install.root")
    live = root == Path("/")
    for tool in ("systemctl", "systemd-sysusers"):
        if shutil.which(tool) is None:
            raise SimpangError("install.no_systemd", error=f"{tool}: not found")
    if live and not Path("/run/systemd/system").is_dir():
        raise SimpangError("install.no_systemd", error="/run/systemd/system: not there")
    if live:
        for path in (python, Path(os.path.realpath(python))):
            if _HIDDEN.match(str(path)) or not _open_to_all(path):
                raise SimpangError("install.python", path=path)
    if _HIDDEN.match(str(state)):
        key, usual = "[gateway] state", templates.STATE
        raise SimpangError("config.value", file=CONFIG_FILE, key=key, found=state, expected=usual)
    for name, other in ((keystore.ROOT_KEY, keystore.REGISTRY), (keystore.REGISTRY, keystore.ROOT_KEY)):
        if inside(root, state / name).exists() and not inside(root, state / other).exists():
            raise SimpangError("install.half_state", path=state, found=name, missing=other)
    for file in (UNIT_FILE, RULES_FILE, SYSUSERS_FILE):
        try:
            text = inside(root, file).read_text("utf-8", "replace")
        except FileNotFoundError:
            continue
        if MARK not in text:
            raise SimpangError("install.foreign", path=file)


def _open_to_all(path: Path) -> bool:
    """Whether any user may run this program."""
    try:
        return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))
    except OSError:
        return False
