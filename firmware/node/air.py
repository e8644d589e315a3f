"""The radio to the gateway: ESP-NOW packets in and out, around the sans-io link.

A packet is one frame, without CRC or COBS: the radio has its own. The way to the gateway leads through a
bridge, whose address is taken only from a packet that the link accepted; until then, and when nothing was
accepted for 30 s, everything goes to all. A HELLO that stays unanswered for a moment is repeated as it is, as
long as its answer would still be good: on the next channel where the channel is searched, else on this one.
"""

import gc

from simpang_protocol.cobs import FRAME_LIMIT
from simpang_protocol.frame import HEADER_SIZE, HELLO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from node.config import Link as Settings
    from simpang_protocol.nodelink import NodeLink

BROADCAST = b"\xff\xff\xff\xff\xff\xff"
LAST_CHANNEL = 13

# In one piece, of a heap that is in use: some twenty acknowledgements.
_RXBUF = 2048
# Portions of one step, so that a busy channel does not keep the loop from the rest.
_PACKETS = 16
_SILENT_MS = 30000
_REPEAT_MS = 400
# How long a channel has to answer a HELLO; doubled when all were tried once, should the gateway be slow.
_DWELL_MS = 150
_DWELL_MOST_MS = 300
# The link takes an answer for this long after its HELLO.
_HELLO_MS = 2000
# A HELLO and its answer are easily lost on the air, more often than that somebody has switched the gateway
# off: there is one at least this often.
_HELLO_MOST_MS = 8000
_SEARCH_MOST_MS = 2000
# Who was asked on a channel has found it, and stays until it is answered there, or nobody asks any more.
_STAY_MS = 5000
_ANSWERS_SOLICIT = 0x80
_FAILURES = 16
# The driver remembers every radio it ever heard, and forgets none until the board restarts.
_STRANGERS = 200
_STRANGERS_AFTER_MS = 600000


class Air:
    """Joins an `espnow.ESPNow` with a NodeLink.

    `tune(channel)` changes the channel and returns whether there is one of that number; `restart()` restarts
    the board. `channel` 0 searches, `bridge` is a configured address or None. `rssi` is how loud the bridge
    was last, in dBm, `failed` counts packets that the other radio did not acknowledge.
    """

    def __init__(
        self,
        radio: "Any",
        link: "NodeLink",
        tune: "Callable[[int], bool]",
        restart: "Callable[[], Any]",
        channel: int,
        bridge: "bytes | None",
    ) -> None:
        self.radio = radio
        self._link = link
        self._tune = tune
        self._restart = restart
        self._searches = channel == 0
        self.channel = channel
        self._fixed = bridge
        self.bridge: bytes | None = None
        self.rssi: int | None = None
        self.failed = 0
        self._failures = 0
        self._registered: bytes | None = None
        self._hello = b""
        self._hello_ms = 0
        self._repeat_at: int | None = None
        self._stay_ms = 0
        self._tried = 0
        self._dwell_ms = _DWELL_MS
        link.hello_most_ms = _SEARCH_MOST_MS if self._searches else _HELLO_MOST_MS
        if self._searches:
            self._hop()
        else:
            tune(channel)
        radio.add_peer(BROADCAST)

    def step(self, now_ms: int) -> int:
        """Read what came, send what is due; return the milliseconds until the next call without input.

        Raises OSError where an epoch cannot be stored.
        """
        more = self._listen(now_ms)
        if len(self.radio.peers_table) > _STRANGERS and now_ms > _STRANGERS_AFTER_MS:
            self._restart()
        frame = self._link.poll(now_ms)
        while frame is not None:
            if frame[0] & 15 == HELLO:
                self._note_hello(frame, now_ms)
            self._send(frame, now_ms)
            frame = self._link.poll(now_ms)
        if self._repeat_at is not None and now_ms >= self._repeat_at:
            self._repeat(now_ms)
        wait = self._link.wait_ms(now_ms)
        if self._repeat_at is not None:
            wait = min(wait, max(0, self._repeat_at - now_ms))
        return 0 if more else wait

    # ---- receiving

    def _listen(self, now_ms: int) -> bool:
        """Take packets; return whether there are more."""
        radio = self.radio
        try:
            for _ in range(_PACKETS):
                if not radio.any():
                    return False
                mac, packet = radio.irecv(0)
                if mac is not None and packet:
                    self._take(bytes(mac), bytes(packet), now_ms)
            return bool(radio.any())
        except OSError:
            self._note_failure()
            return False

    def _take(self, mac: bytes, packet: bytes, now_ms: int) -> None:
        if len(packet) > FRAME_LIMIT:
            return
        link = self._link
        before = link.heard_ms
        link.receive(packet, now_ms)
        if link.heard_ms == before:
            return
        # The link believes it, so whoever sent it is a way to the gateway.
        self.rssi = self.radio.peers_table[mac][0]
        self._repeat_at = None
        self._tried = 0
        self._stay_ms = 0
        self._dwell_ms = _DWELL_MS
        self.bridge = mac

    # ---- searching

    def _is_lost(self, now_ms: int) -> bool:
        heard_ms = self._link.heard_ms
        return not self._link.greeted or heard_ms is None or now_ms - heard_ms >= _SILENT_MS

    def _is_searching(self, now_ms: int) -> bool:
        return self._searches and now_ms >= self._stay_ms and self._is_lost(now_ms)

    def _note_hello(self, frame: bytes, now_ms: int) -> None:
        """A fresh HELLO is about to be sent; choose its channel."""
        if frame[HEADER_SIZE] & _ANSWERS_SOLICIT:
            self._stay_ms = now_ms + _STAY_MS
            self._tried = 0
        elif self._is_searching(now_ms):
            if self._tried and now_ms - self._hello_ms >= self._dwell_ms:
                # The HELLO before this one found nobody here.
                self._hop()
            self._tried += 1
        self._hello = frame
        self._hello_ms = now_ms
        self._repeat_at = now_ms + (self._dwell_ms if self._is_searching(now_ms) else _REPEAT_MS)

    def _repeat(self, now_ms: int) -> None:
        """The HELLO stayed unanswered for a moment."""
        self._repeat_at = None
        wait = _REPEAT_MS
        if self._is_searching(now_ms):
            wait = self._dwell_ms
        if now_ms - self._hello_ms + wait > _HELLO_MS:
            return
        if self._is_searching(now_ms):
            self._hop()
            self._tried += 1
            if self._tried >= LAST_CHANNEL:
                self._tried = 1
                self._dwell_ms = min(_DWELL_MOST_MS, 2 * self._dwell_ms)
        self._repeat_at = now_ms + wait
        self._send(self._hello, now_ms)

    def _hop(self) -> None:
        for _ in range(LAST_CHANNEL):
            self.channel = self.channel % LAST_CHANNEL + 1
            if self._tune(self.channel):
                return

    # ---- sending

    def _send(self, frame: bytes, now_ms: int) -> None:
        mac = self._fixed
        if mac is None:
            mac = BROADCAST if self.bridge is None or self._is_lost(now_ms) else self.bridge
        radio = self.radio
        try:
            if mac != BROADCAST and mac != self._registered:
                old, self._registered = self._registered, None
                if old is not None:
                    radio.del_peer(old)
                radio.add_peer(mac)
                self._registered = mac
            if not radio.send(mac, frame):
                self.failed += 1
            self._failures = 0
        except OSError:
            self.failed += 1
            self._note_failure()

    def _note_failure(self) -> None:
        """The radio itself refused; after some of that it is switched off and on again."""
        self._failures += 1
        if self._failures < _FAILURES:
            return
        self._failures = 0
        self._registered = None
        try:
            self.radio.active(False)
            self.radio.active(True)
            self._tune(self.channel)
            self.radio.add_peer(BROADCAST)
        except OSError:
            pass


def start(link: "NodeLink", settings: "Settings") -> Air:
    """Switch the radio on and return the line; for the board, where there is one."""
    import espnow
    import machine
    import network

    wlan = network.WLAN(network.WLAN.IF_STA)
    wlan.active(True)
    # Otherwise it sleeps between beacons that nobody sends here, and misses frames.
    wlan.config(pm=network.WLAN.PM_NONE)
    radio = espnow.ESPNow()
    gc.collect()
    radio.config(rxbuf=_RXBUF)
    radio.active(True)

    def tune(channel: int) -> bool:
        try:
            wlan.config(channel=channel)
        except (OSError, ValueError, RuntimeError):
            return False  # the country has no such channel
        return True

    return Air(radio, link, tune, machine.reset, settings.channel, settings.bridge)
