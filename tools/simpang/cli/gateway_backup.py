"""`simpang gateway backup` and `simpang gateway restore`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simpang_gateway.errors import SimpangError

from .help import config_option, example, json_option

if TYPE_CHECKING:
    from simpang.backup.content import Content

_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the passphrase from a file of mode 0600 instead of asking for it.",
)


@click.command(
    epilog=example(
        "simpang gateway backup --out /media/usb/semarang-1.backup",
        "simpang gateway backup --out semarang-1.backup --force --passphrase-file passphrase",
    )
)
@config_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The file to write."
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@_passphrase_option
@json_option
def backup(config_path: Path, out: Path, force: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Save keys, registry, revocations and configuration in one encrypted file.

    With it a new card serves the old nodes. The root key is in it, and the files that the configuration
    names: passwords, certificates and their keys. Stored records are not: `simpang gateway export` saves
    those. Works beside a running gateway. Make one after every `node add`, `rekey` and `revoke`, and keep the
    passphrase elsewhere: nobody can open the file without it.
    """
    from simpang.backup import content, sealing

    from .show import print_json

    if out.exists() and not force:
        raise SimpangError("backup.exists", path=out)
    found = content.collect(config_path)
    passphrase = _passphrase(passphrase_file, twice=True)
    if len(passphrase) < sealing.LEAST_PASSPHRASE:
        raise SimpangError("backup.short_passphrase", limit=sealing.LEAST_PASSPHRASE)
    _write(out, sealing.seal(found.to_bytes(), passphrase))
    sealing.read(out)
    if as_json:
        print_json({"v": 1, "file": str(out), **_described(found)})
        return
    _show(found)
    click.echo(f"Saved in {out}.")
    click.echo("Next: keep the file away from this machine, and the passphrase away from the file.")


@click.command(
    epilog=example(
        "simpang gateway restore semarang-1.backup --list",
        "simpang gateway restore semarang-1.backup --to /etc/simpang --state /var/lib/simpang",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where gateway.toml and the files that it names go; missing or empty.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the gateway keeps its data; missing or empty.  [default: FOLDER/state]",
)
@click.option(
    "--list", "--dry-run", "listed", is_flag=True, help="Only show what is inside, without its secrets."
)
@_passphrase_option
@json_option
def restore(
    file: Path,
    folder: Path | None,
    state: Path | None,
    listed: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a gateway from a backup, so that its nodes go on without being touched.

    Everything is checked before anything is written, and nothing is overwritten. The store begins anew, under
    an id of its own. Epochs, ids and commands go on above all that may have been used since the backup, and
    keys of a flashing since then are accepted. The gateway whose backup it is must never run again.
    """
    from simpang.backup import content, restoring, sealing

    from .show import print_json

    data = sealing.read(file)
    header, _ = sealing.header_of(file, data)
    if folder is None and not listed:
        raise click.UsageError("give --to FOLDER, or --list")
    target = None
    if folder is not None:
        folder = folder.absolute()
        target = restoring.Target(folder, folder / "state" if state is None else state.absolute())
        target.free()
    found = content.Content.from_bytes(file, sealing.unseal(file, data, _passphrase(passphrase_file)))
    described = {"created": header["created"], **_described(found)}
    if listed:
        if as_json:
            print_json({"v": 1, "file": str(file), **described})
        else:
            click.echo(f"Backup of {header['created']}")
            _show(found)
        return
    assert target is not None
    config = restoring.restore(found, target)
    path = target.folder / content.CONFIG
    if as_json:
        print_json({"v": 1, "config": str(path), "state": str(config.state), **described})
        return
    click.echo(f"Restored {path} and {config.state} from the backup of {header['created']}.")
    click.echo(f"Next: `simpang gateway check --config {path}`, then run or install the gateway.")
    click.echo("Revoke again whom you revoked since that backup, and add again what you added since.")


def _passphrase(file: Path | None, *, twice: bool = False) -> str:
    from simpang_gateway.files import read_password

    if file is not None:
        return read_password(file)
    if not sys.stdin.isatty():
        raise SimpangError("backup.no_passphrase")
    found: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True)
    return found


def _write(path: Path, data: bytes) -> None:
    from simpang_gateway.files import describe

    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(part, path)
        folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SimpangError("backup.unwritable", path=path, error=describe(error)) from error


def _described(found: "Content") -> dict[str, Any]:
    nodes, revoked = _nodes(found)
    return {
        "site": found.site,
        "gateway": found.gateway,
        "nodes": nodes,
        "revoked": revoked,
        "files": [{"name": part.name, "path": part.path, "bytes": len(part.data)} for part in found.parts],
    }


def _nodes(found: "Content") -> tuple[int, int]:
    import json

    registry, revoked = found.part("state/registry.json"), found.part("state/revoked.json")
    return (
        len(json.loads(registry.data)["nodes"]) if registry else 0,
        len(json.loads(revoked.data)["nodes"]) if revoked else 0,
    )


def _show(found: "Content") -> None:
    nodes, revoked = _nodes(found)
    click.echo(f"Gateway {found.gateway} of site {found.site}: {nodes} nodes, {revoked} of them revoked.")
    for part in found.parts:
        click.echo(f"  {part.name:<28} {part.path}")
