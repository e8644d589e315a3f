"""A node without firmware on the air: the protocol's node link with a journal in memory behind a radio."""

from __future__ import annotations

import asyncio
import hashlib
import socket

from simpang.rig.air import BROADCAST, AirWaves
from simpang.rig.softnode import SoftNode
from simpang_protocol.cobs import wrap

# Where the air's answers end and packets begin: from6 rssi payload.
_HEAD = 7
_READS = 64


class SoftRadio:
    """A soft node on the air, driven by the running event loop. It speaks to all until its link has accepted
    a packet, and to that radio from then on. `hello_most_ms` is its longest pause between two HELLOs.
    """

    def __init__(self, node: SoftNode, air: AirWaves, channel: int, hello_most_ms: int = 8000) -> None:
        self.node = node
        self.mac = b"\x02" + hashlib.sha256(b"soft %d" % node.number).digest()[:5]
        self._channel = channel
        self._hello_most_ms = hello_most_ms
        self._to = BROADCAST
        self._air = ("127.0.0.1", air.port)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def boot(self) -> None:
        """Give it power."""
        self._socket.sendto(b"J" + self.mac + bytes((self._channel,)), self._air)
        self._loop.add_reader(self._socket, self._readable)
        self.node.boot(self._now_ms())
        self.node.link.hello_most_ms = self._hello_most_ms
        self.pump()

    def create(self, count: int) -> None:
        """Let the node make records, and send them."""
        for _ in range(count):
            self.node.create(self.node.journal.created)
        self.pump()

    def close(self) -> None:
        """Cut its power, for good."""
        self.node.cut()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def pump(self) -> None:
        """Send what is due, and come back when more will be."""
        now_ms = self._now_ms()
        while (frame := self.node.poll(now_ms)) is not None:
            self._socket.sendto(b"\0S" + self._to + self.mac + frame, self._air)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(1, self.node.wait_ms(now_ms)) / 1000, self.pump)

    def _readable(self) -> None:
        for _ in range(_READS):
            try:
                data = self._socket.recv(2048)
            except BlockingIOError:
                break
            if len(data) > _HEAD:
                self._take(data[:6], data[_HEAD:])
        self.pump()

    def _take(self, source: bytes, packet: bytes) -> None:
        if not self.node.on:
            return
        before = self.node.link.heard_ms
        self.node.take(wrap(packet), self._now_ms())
        if self.node.link.heard_ms != before:
            self._to = source

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)
