"""A node with all its sensors on the real VM, and a gateway in memory at the other end of its line."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simpang.rig import VirtualNode
from simpang.rig.changes import Changes
from simpang.rig.models.bme280 import Bme280
from simpang.rig.models.pms5003 import Pms5003
from simpang.rig.world import Air
from simpang_gateway.mailbox import Command
from simpang_protocol import codes, record, schema, times
from simpang_protocol import commands as wire
from simpang_protocol.cobs import Deframer, wrap
from simpang_protocol.frame import HELLO, parse_header
from simpang_protocol.keyset import KeySet
from simpang_protocol.session import NodeSession
from simpang_protocol.sessionstate import Downlink, WindowState

NODE = 7
KEYS = {"up": bytes(range(16)), "down": bytes(range(16, 32)), "hello": bytes(range(64, 96))}
KEY_FILE = {
    "v": 1,
    "site": "semarang-1",
    "node": NODE,
    "generation": 1,
    "epoch_start": 1,
    "up4": "44" * 16,
    **{name: key.hex() for name, key in KEYS.items()},
}
BUSES = {"uart1": {"kind": "uart", "id": 1}, "i2c0": {"kind": "i2c", "id": 0}}
DUST = {"kind": "pms5003", "bus": "uart1", "warmup_s": 0, "silent_s": 3}
WEATHER = {"kind": "bme280", "bus": "i2c0", "every_ms": 100}
# Every kind of sensor that fits beside the others.
FULL = {"v": 1, "buses": BUSES, "sensors": [DUST, WEATHER], "record": {"interval_s": 1, "batch": 1}}
# A record every 20 ms, without a sensor.
BUSY = {"v": 1, "record": {"interval_ms": 20}}
QUIET = {"v": 1, "record": {"interval_s": 3600}, "health_s": 86400}
UNIX_2020 = 1577836800
# A node is greeted once a second at most; nodes that boot more often here need a gateway with a faster clock.
SPEED = 10


class _Host:
    """Grants everything, and remembers nothing."""

    def reserve(self, epoch: int) -> None:
        pass

    def promote(self, generation: int) -> None:
        raise AssertionError("there is one generation only")

    def admit(self, size: int) -> bool:
        return True

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)


class Gateway:
    """The gateway's end of a line, with a store in memory that commits at once."""

    def __init__(self, url: str) -> None:
        self.records: dict[tuple[int, int], record.Record] = {}
        self.refused: Counter[str] = Counter()
        self.lost: list[tuple[int, int, int, str]] = []
        self.windows: dict[int, WindowState] = {}
        # Every sealed frame by its nonce: (epoch, counter).
        self.sealed: dict[tuple[int, int], bytes] = {}
        # What a node must never do, seen all the same.
        self.faults: list[str] = []
        # Whether it takes no notice of what comes.
        self.deaf = False
        self._changes = Changes()
        self._patch: Command | None = None
        self._deframer = Deframer()
        self._session = NodeSession(
            NODE, KeySet(1, KEYS), None, Downlink(lambda: os.urandom(7)), [], [], 0, _Host(), 0
        )
        self._fd = os.open(url, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        assert self.faults == []

    async def wait_for(self, predicate: Callable[[], object], timeout_s: float = 20) -> None:
        """Wait until `predicate()` is true; it is asked after every frame."""
        await self._changes.wait_for(predicate, timeout_s)

    def of(self, kind: schema.Schema) -> list[record.Record]:
        """Records of a schema in the order of their creation."""
        return [found for _, found in sorted(self.records.items()) if found.schema == kind.number]

    def column(self, name: str) -> list[int | None]:
        """Values of a field of the air schema, one a sample."""
        index = schema.AIR.index(name)
        return [row[index] for found in self.of(schema.AIR) for row in found.rows]

    def post(self, command: int, op: int, data: bytes = b"") -> None:
        """Have a command delivered with the next answers, until its result comes."""
        self._session.post(command, op, data)

    def configure(self, command: int, patch: Mapping[str, Any]) -> None:
        """Have a patch of the configuration delivered, in parts where it is long."""
        self._patch = Command(command, wire.SET, json.dumps(patch, separators=(",", ":")).encode())
        self._session.post(command, *self._patch.on_the_wire())

    def settings(self) -> list[tuple[int, int, str]]:
        """(command, outcome, text) of each `settings` event."""
        return [
            (found.rows[0][3] or 0, found.rows[0][2] or 0, wire.text_of(found))
            for found in self.events(codes.SETTINGS)
        ]

    def results(self) -> list[tuple[int, int, str]]:
        """(command, outcome, text) of each result record."""
        return [
            (found.rows[0][2] or 0, found.rows[0][3] or 0, wire.text_of(found))
            for found in self.events(codes.COMMAND)
        ]

    def events(self, code: int) -> list[record.Record]:
        return [found for found in self.of(schema.EVENT) if found.rows[0][0] == code]

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return
        if self.deaf:
            return
        for frame in self._deframer.feed(data):
            try:
                self._take(frame)
            except AssertionError as error:
                # The event loop would only print it.
                self.faults.append(str(error))
        self._changes.notify()

    def _take(self, frame: bytes) -> None:
        now_ms = int(time.monotonic() * 1000 * SPEED)
        unix = time.time()
        heard = times.Time(int(unix) - UNIX_2020, int(unix % 1 * 1000), times.SYNCED)
        header = parse_header(frame)
        if header.kind != HELLO:
            nonce = (header.epoch, header.counter)
            assert self.sealed.setdefault(nonce, frame) == frame, f"nonce {nonce} was used twice"
        received = self._session.receive(header, frame, now_ms, now_ms, heard)
        for epoch in received.wanted:
            lost = [(first, last) for each, first, last, _ in self.lost if each == epoch]
            self._session.put_back(self.windows.get(epoch, WindowState(epoch)).copy(), lost)
        if received.cause is not None:
            self.refused[received.cause] += 1
            return
        replies = [received.reply]
        if received.changes:
            self._session.submitted()
            self.windows.update({e: state.copy() for e, state in received.changes.windows.items()})
            for entry in received.changes.records:
                place = (entry.epoch, entry.seq)
                assert place not in self.records, f"record {place} came twice as new"
                self.records[entry.epoch, entry.seq] = record.parse(entry.body)
            self.lost += received.changes.lost
            self._session.committed(received.changes)
            for number, outcome, text in received.changes.results:
                if outcome == codes.PART and self._patch is not None and self._patch.number == number:
                    self._patch.parts_there = int(text)
                    self._session.post(number, *self._patch.on_the_wire())
            replies.append(received.changes.then_send)
        if self._session.ack_requested:
            replies.append(self._session.mail(now_ms))
            replies.append(self._session.answer(now_ms, heard, 16))
        for reply in replies:
            if reply is not None:
                os.write(self._fd, wrap(reply))


class Bench:
    """A node with all its sensors, and a gateway where a test wants one."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.air = Air()
        self.dust = Pms5003(self.air)
        self.dust.settle_ms = 0
        self.weather = Bme280(self.air)
        options.setdefault("config", FULL)
        options.setdefault("key", KEY_FILE)
        self.node = VirtualNode(
            "n1",
            folder,
            env=self.air,
            models={"uart1": self.dust, "i2c0": [self.weather]},
            link=2,
            **options,
        )
        self.gateway: Gateway | None = None

    def connect(self) -> Gateway:
        self.gateway = Gateway(self.node.url)
        return self.gateway

    async def stop(self) -> None:
        try:
            if self.gateway is not None:
                self.gateway.close()
        finally:
            await self.node.stop()

    async def restart(self, files: dict[str, bytes]) -> int:
        """Cut the power, change files as a technician does, give power; return the mark for new events."""
        await self.node.cut_power()
        self.node.write_files(files)
        mark = self.node.console.total
        await self.node.power_on()
        return mark

    def stats(self) -> dict[str, int]:
        """What the node said of its accounts last."""
        found = [event for event in self.node.console.events if event["code"] == "node.stats"]
        return found[-1] if found else {"created": 0, "freed": 0, "held": 0, "dropped": 0, "epoch": 0}

    def codes(self, mark: int = 0) -> list[str]:
        return [event["code"] for event in self.node.console.since(mark)]
