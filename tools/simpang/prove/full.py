"""The real store and the real gateway on a small disk: full, read-only, and well again.

Everything happens in a process of its own with mounts of its own (`unshare`): a tmpfs answers ENOSPC as a
full card does, and an ext4 on a loop device turns itself read-only as after an error of the card.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from simpang_gateway.store import (
    Batch,
    Cursor,
    NewRecord,
    Store,
    StoreError,
    StoreOptions,
    WindowState,
    owner,
)

STORE, GATEWAY, READONLY = "store", "gateway", "read-only"
COUNTED = ("scenarios", "acknowledged", "lost", "duplicates", "corrupt", "refused", "dropped")

_BOOT = "0f4f9a0e-4a5b-4a40-8b60-1a6f1d3e7c55"
_UPLINK = "city"
_DEADLINE_S = 60.0
_RETRY_S = (0.05, 0.5)


@dataclass(slots=True)
class Tally:
    """What came of scenarios.

    Attributes:
        acknowledged: records that the store or the gateway said were safe.
        lost: those of them that were neither there in the end, nor delivered, nor declared.
        refused: commits that were refused while the disk gave no room.
        dropped: acknowledged records that are declared in the ledger.
    """

    scenarios: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    refused: int = 0
    dropped: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what a child has told."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + other[name])
        self.kinds.update(other["kinds"])
        self.events.update(other["events"])
        self.faults += other["faults"]

    def told(self) -> dict[str, Any]:
        """What `add` takes."""
        return {
            **{name: getattr(self, name) for name in COUNTED},
            "kinds": dict(self.kinds),
            "events": dict(self.events),
            "faults": self.faults,
        }


def kinds(seed: int, count: int) -> list[tuple[int, str]]:
    """The scenarios of a seed: number and kind; the first is the gateway, every eighth is read-only."""
    return [
        (number, GATEWAY if number == 0 else READONLY if number % 8 == 4 and can_make_ext4() else STORE)
        for number in range(count)
    ]


def can_make_ext4() -> bool:
    """Whether this user may mount an ext4 of its own, and has what it takes."""
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("mkfs.ext4", "e2fsck", "losetup"))


def why_not() -> str | None:
    """Why nothing can be mounted here, or None."""
    if shutil.which("unshare") is None:
        return "there is no unshare (util-linux)"
    done = subprocess.run([*_apart(), "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or "unshare fails"


def _apart() -> list[str]:
    """How to start a program with mounts of its own; an ordinary user becomes root of a name space."""
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]


def run(seed: int, number: int, kind: str) -> dict[str, Any]:
    """Run one scenario in a process with mounts of its own; return what `Tally.add` takes."""
    command = [*_apart(), sys.executable, "-m", __name__, str(seed), str(number), kind]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=5 * _DEADLINE_S,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        tally = Tally(scenarios=1, faults=[f"--only {number}: {done.stderr[-500:]}"])
        found = tally.told()
    return found


# ---- in the child


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class _Disk:
    """A small disk at `place` that can be filled and emptied."""

    def __init__(self, place: Path, megabytes: float) -> None:
        self.place = place
        place.mkdir()
        _do("mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "simpang", str(place))

    def fill(self, leave: int) -> None:
        """Somebody else writes until `leave` bytes are left."""
        with open(self.place / "somebody-else", "wb", buffering=0) as file:
            disk = os.statvfs(self.place)
            size = max(0, disk.f_bavail * disk.f_frsize - leave)
            try:
                while size > 0:
                    size -= file.write(bytes(min(size, 1 << 16)))
            except OSError:
                return

    def empty(self) -> None:
        """Somebody else tidies up."""
        (self.place / "somebody-else").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "-l", str(self.place)], check=False, capture_output=True)


class _Ext4(_Disk):
    """The same on an ext4 of its own, which an error turns read-only."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place = place
        self._image = place.with_name("image")
        self._loops: list[str] = []
        with open(self._image, "wb") as file:
            file.truncate(megabytes << 20)
        _do("mkfs.ext4", "-q", str(self._image))
        place.mkdir()
        self._mount_image()

    def _mount_image(self) -> None:
        found = subprocess.run(
            ["losetup", "--find", "--show", str(self._image)], check=True, capture_output=True, text=True
        )
        self._loops.append(found.stdout.strip())
        _do("mount", "-o", "errors=remount-ro", self._loops[-1], str(self.place))

    def fail(self) -> None:
        """The card reports an error."""
        Path("/sys/fs/ext4", Path(self._loops[-1]).name, "trigger_fs_error").write_text("1")

    def mend(self) -> None:
        """Somebody takes the card out, checks it and puts it back: ext4 lets nobody write after an error."""
        _do("umount", "-l", str(self.place))
        os.sync()
        after = self._image.with_name(f"image{len(self._loops)}")
        shutil.copyfile(self._image, after)
        self._image = after
        subprocess.run(["e2fsck", "-fy", str(after)], check=False, capture_output=True)
        self._mount_image()

    def close(self) -> None:
        """Unmount it and give the loop device back."""
        subprocess.run(["umount", str(self.place)], check=False, capture_output=True)
        for loop in self._loops:
            subprocess.run(["losetup", "-d", loop], check=False, capture_output=True)


class _StoreRun:
    """The store itself: commits go on whatever the disk says, and every answer is kept."""

    def __init__(self, chance: Random, tally: Tally, number: int) -> None:
        self._chance = chance
        self._tally = tally
        self._number = number
        self._events: list[str] = []
        self._made: dict[int, bytes] = {}
        self._acknowledged: set[int] = set()
        self._delivered = 0

    async def run(self, disk: _Disk) -> None:
        """Fill, refuse, tidy up, recover; twice."""
        owner.RETRY_S = _RETRY_S
        store = await self._open(disk)
        for _ in range(2):
            await self._commit(store, self._chance.randrange(10, 60))
            refused = self._tally.refused
            if isinstance(disk, _Ext4):
                disk.fail()
            else:
                disk.fill(self._chance.choice((0, 0, 4096, 100_000, 1_000_000)))
            await self._commit(store, 60)
            alarms = {"store.full", "store.readonly", "store.io"} & set(self._events)
            if self._tally.refused > refused and not alarms:
                self._fault("corrupt", "commits were refused and nothing was told")
            if isinstance(disk, _Ext4):
                if self._tally.refused == refused:
                    self._fault("corrupt", "commits succeeded on a disk that is read-only")
                disk.mend()
            else:
                disk.empty()
            # While a card is out, the store may have begun anew in the empty folder: then once more.
            for _ in range(3):
                await self._recovered(store)
                if await self._commit(store, 5) == 5:
                    break
            else:
                self._fault("corrupt", "commits are refused although the disk is well")
        await store.close()
        await self._judge(disk)
        self._tally.events.update(self._events)

    async def _open(self, disk: _Disk) -> Store:
        options = StoreOptions(
            max_mb=64, uplinks=(_UPLINK,), on_event=lambda code, _: self._events.append(code)
        )
        return await Store.open(str(disk.place / "store.db"), options, _BOOT)

    async def _commit(self, store: Store, commits: int) -> int:
        done = 0
        for _ in range(commits):
            first = len(self._made)
            for seq in range(first, first + self._chance.choice((1, 20, 200))):
                self._made[seq] = self._chance.randbytes(60)
            records = [_record(seq, body) for seq, body in self._made.items() if seq >= first]
            window = WindowState(1, 1 + len(self._made) // 60_000, len(self._made) % 60_000, 0, 0)
            try:
                last = await store.commit(Batch(tuple(records), (window,))) + len(records) - 1
            except StoreError:
                self._tally.refused += 1
                await asyncio.sleep(0.01)
                continue
            done += 1
            self._acknowledged.update(range(first, len(self._made)))
            if self._chance.random() < 0.5:
                self._delivered = last
                store.advance(Cursor(_UPLINK, last))
        return done

    async def _recovered(self, store: Store) -> None:
        async with asyncio.timeout(_DEADLINE_S):
            while not store.healthy:
                await asyncio.sleep(0.01)

    async def _judge(self, disk: _Disk) -> None:
        store = await self._open(disk)
        held: Counter[int] = Counter()
        ids: dict[int, int] = {}
        after = 0
        while rows := await store.read(after, 1000):
            after = rows[-1].id
            for row in rows:
                seq = (row.epoch - 1) * 60_000 + row.seq
                held[seq] += 1
                ids[seq] = row.id
                if self._made.get(seq) != row.body:
                    self._fault("corrupt", f"row {row.id} has another content")
        declared: set[int] = set()
        for loss in await store.load_losses():
            base = (loss.epoch - 1) * 60_000
            declared.update(range(base + loss.first, base + loss.last + 1))
        await store.close()
        gone = self._acknowledged - held.keys() - declared
        oldest = min(ids.values(), default=0)
        # Rows that the uplink had passed go first, without a word: their ids lie below the oldest here.
        lost = {seq for seq in gone if not ids or self._delivered < oldest - 1}
        self._tally.acknowledged += len(self._acknowledged)
        self._tally.dropped += len(self._acknowledged & declared)
        self._tally.duplicates += sum(count - 1 for count in held.values())
        if lost:
            self._tally.lost += len(lost)
            self._fault("lost", f"{len(lost)} acknowledged records are gone: {sorted(lost)[:5]}", count=0)
        if held and max(held.values()) > 1:
            self._fault("duplicates", "records are here twice", count=0)

    def _fault(self, kind: str, what: str, count: int = 1) -> None:
        setattr(self._tally, kind, getattr(self._tally, kind) + count)
        self._tally.faults.append(f"--only {self._number}: {what}")


def _record(seq: int, body: bytes) -> NewRecord:
    return NewRecord(1, 1 + seq // 60_000, seq % 60_000, 1, 1_795_000_000_000, seq, True, body)


async def _gateway(folder: Path, tally: Tally, number: int) -> None:
    """The gateway's own process with its state folder on the disk, and a node that keeps what it must."""
    import sqlite3

    from simpang.rig.gateway import GatewayProcess
    from simpang.rig.softnode import SoftLine, SoftNode

    disk = _Disk(folder / "state", 24)
    gateway = GatewayProcess(folder, settings={"store": {"commit_ms": 20}})
    _, key = gateway.add_node("the cabinet")
    line = SoftLine(SoftNode(key), folder / "line0")
    line.plug()
    gateway.set_port("line0", line.url)
    try:
        await gateway.start()
        line.boot()
        line.create(300)
        await line.wait_until_empty(_DEADLINE_S)
        disk.fill(0)
        codes: set[str] = set()
        made = 300
        async with asyncio.timeout(_DEADLINE_S):
            while not codes & {"store.full", "store.io"}:
                line.create(200)
                made += 200
                await asyncio.sleep(0.2)
                codes |= {alarm["code"] for alarm in (await gateway.status())["alarms"]}
        held = line.node.journal.held
        tally.refused += 1
        if not held:
            tally.corrupt += 1
            tally.faults.append(f"--only {number}: the store is full, and its node holds nothing")
        disk.empty()
        await line.wait_until_empty(2 * _DEADLINE_S)
        async with asyncio.timeout(_DEADLINE_S):
            while {alarm["code"] for alarm in (await gateway.status())["alarms"]} & {
                "store.full",
                "store.io",
            }:
                await asyncio.sleep(0.1)
        tally.events.update(codes)
        gateway.stop()
        with sqlite3.connect(disk.place / "store.db") as connection:
            rows = connection.execute("select k, seq from record").fetchall()
        tally.acknowledged += made
        tally.duplicates += len(rows) - len(set(rows))
        missing = made - len(set(rows))
        if missing > 0:
            tally.lost += missing
            tally.faults.append(f"--only {number}: the gateway has {len(set(rows))} of {made} records")
    finally:
        gateway.kill()
        line.close()
        disk.close()


def _child(seed: int, number: int, kind: str) -> Tally:
    tally = Tally(scenarios=1)
    tally.kinds[kind] += 1
    chance = Random(f"{seed} full {number}")
    with tempfile.TemporaryDirectory(prefix="simpang-full-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            if kind == GATEWAY:
                asyncio.run(_gateway(folder, tally, number))
            else:
                place, size = folder / "disk", 6 + 20 * chance.random()
                disk = _Ext4(place, 48) if kind == READONLY else _Disk(place, size)
                try:
                    asyncio.run(_StoreRun(chance, tally, number).run(disk))
                finally:
                    disk.close()
        except Exception:
            tally.corrupt += 1
            tally.faults.append(f"--only {number}: {traceback.format_exc(limit=-3)}")
    return tally


if __name__ == "__main__":
    print(json.dumps(_child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).told()))
