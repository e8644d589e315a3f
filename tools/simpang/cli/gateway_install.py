"""`simpang gateway install`."""

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .help import example, json_option

if TYPE_CHECKING:
    from simpang.install.actions import Action

_HINT = """\
Next:
  1. ports and uplinks: edit /etc/simpang/gateway.toml
  2. simpang gateway check
  3. systemctl start simpang-gateway; systemctl status simpang-gateway
Technicians: usermod -aG simpang NAME   (they may then use `simpang gateway` and `simpang node`)
A card lives longer with a journal in memory: Storage=volatile, RuntimeMaxUse=32M in journald.conf"""


@click.command(
    epilog=example(
        "simpang gateway install --site semarang-1 --dry-run",
        "simpang gateway install --site semarang-1 --name simpang-lima",
        "simpang gateway install --undo",
    )
)
@click.option("--site", metavar="NAME", help="The site, where there is no configuration yet.")
@click.option("--name", default="gateway", show_default=True, metavar="NAME", help="The gateway's own name.")
@click.option(
    "--config-from",
    "source",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A configuration to copy; its state folder must be an absolute path.",
)
@click.option("--dry-run", is_flag=True, help="Print every step with what it writes, and do none.")
@click.option("--undo", is_flag=True, help="Take the service away; keys, records and configuration stay.")
@click.option(
    "--purge",
    count=True,
    help="With --undo: keys, registry, records, configuration, user too. Asks; given twice it does not.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=Path("/"),
    metavar="DIR",
    help="Install into the folder of an image.",
)
@click.option(
    "--python",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(sys.executable),
    metavar="FILE",
    help="The interpreter that the service runs, as the image sees it.  [default: this one]",
)
@json_option
def install(
    site: str | None,
    name: str,
    source: Path | None,
    dry_run: bool,
    undo: bool,
    purge: int,
    root: Path,
    python: Path,
    as_json: bool,
) -> None:
    """Install the gateway as a systemd service of the static user simpang.

    User, configuration, data folder with a new root key, udev names and unit; what is there already stays. A
    second run changes nothing, or brings unit and rules up to date. Nothing is downloaded. The service is
    enabled, not started.
    """
    from simpang.install.steps import check_machine, install_plan, undo_plan

    if purge and not undo:
        raise click.UsageError("--purge belongs to --undo.")
    wanted = _wanted(root, site, name, source, python, undo)
    if not dry_run:
        check_machine(root, python, wanted.state)
    if undo:
        if purge == 1 and not dry_run:
            click.confirm(f"Delete {wanted.state} with its root key, and the configuration?", abort=True)
        plan = undo_plan(wanted.state, purge=purge > 0)
    else:
        plan = install_plan(wanted)
    report = _carry_out(plan, root, dry_run, as_json)
    if as_json:
        from .show import print_json

        print_json({"v": 1, "dry_run": dry_run, "actions": report})
    elif not undo and not dry_run:
        click.echo(_HINT)


def _wanted(root: Path, site: str | None, name: str, source: Path | None, python: Path, undo: bool) -> Any:
    from simpang.install.actions import inside
    from simpang.install.steps import CONFIG_FILE, Wanted
    from simpang.install.templates import STATE
    from simpang_gateway.config import parse
    from simpang_gateway.errors import SimpangError
    from simpang_gateway.files import describe

    from .initial import configuration_text

    def read(path: Path) -> str:
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SimpangError("config.unreadable", file=path, error=describe(error)) from error

    there = inside(root, CONFIG_FILE)
    text: str | None = None
    if there.exists():
        found = read(there)
        if source is not None and read(source) != found:
            raise SimpangError("install.config", path=there, other=source)
    elif undo:
        return Wanted(python, "", STATE, None)
    elif source is not None:
        text = found = read(source)
    elif site is not None:
        text = found = configuration_text(CONFIG_FILE, site, name, str(STATE), installed=True)
    else:
        raise SimpangError("install.site", path=there)
    config = parse(found, CONFIG_FILE)
    if not Path(tomllib.loads(found)["gateway"]["state"]).is_absolute():
        raise SimpangError("install.state", path=source or there, example=f'"{STATE}"')
    names = ("password_file", "ca_file", "cert_file", "key_file")
    files = {getattr(uplink, name) for uplink in config.uplinks for name in names} - {None}
    return Wanted(python, config.gateway.site, config.state, text, tuple(sorted(files)))


def _carry_out(plan: "list[Action]", root: Path, dry_run: bool, quiet: bool) -> list[dict[str, Any]]:
    """Do what is not done yet, and say so; returns every step with whether it was to be done."""
    import subprocess

    from simpang_gateway.errors import SimpangError
    from simpang_gateway.files import describe

    report = []
    # Judged before the first step, as a dry run does: what is told is what is done.
    dues = [not action.done(root) for action in plan]
    for number, (action, due) in enumerate(zip(plan, dues, strict=True), 1):
        report.append({"action": action.words(), "due": due, "content": action.content()})
        if not quiet:
            click.echo(
                f"{'would ' if dry_run and due else ''}{action.words()}"
                if due
                else f"  (done) {action.words()}"
            )
            if dry_run and due:
                for line in action.content().splitlines():
                    click.echo(f"    | {line}")
        if dry_run or not due:
            continue
        try:
            action.act(root)
        except (OSError, subprocess.SubprocessError, SimpangError) as error:
            words = str(getattr(error, "stderr", "") or "").strip() or describe(error)
            place = {"step": number, "steps": len(plan), "action": action.words(), "error": words}
            raise SimpangError("install.failed", **place) from error
    return report
