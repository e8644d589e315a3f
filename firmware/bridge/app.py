"""The application of a bridge: one loop between the radio and the line to the gateway.

Nothing is printed while it runs: on most boards the line is the USB connector, which is the console too.
"""

import gc
import select
import time

import espnow
import machine
import micropython
import network
from esp32 import NVS

from bridge import config
from bridge.relay import Relay
from simpang_protocol.envelope import BROADCAST, LAST_CHANNEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bridge.config import Settings

VERSION = "0.1.0"
CONFIG_FILE = "/config.json"

_FIRST_CHANNEL = 1
_KEY = "channel"
# What the driver adds to a packet in its buffer, and the longest frame of a node.
_PACKET = 16 + 250
_ROOM = 60
_RADIO_RXBUF = _ROOM * _PACKET + 1
_LINE_RXBUF = 8192
_LINE_TXBUF = 2048
# Portions of one turn, so that neither side waits long for the other. 256 bytes hold at most 17 frames, so
# that those that wait never exceed what the relay keeps.
_READ_BYTES = 256
_READS = 8
_WAITING = 15
_PACKETS = 16
_SENDS = 4
_LONGEST_WAIT_MS = 1000
# The driver remembers every radio it ever heard, and forgets none until the board restarts.
_STRANGERS = 400
_STRANGERS_AFTER_MS = 600000
_FAILURES = 16


class App:
    """Everything that a running bridge holds."""

    def __init__(self, settings: "Settings", version: str) -> None:
        self._last = time.ticks_ms()
        self._uptime_ms = 0
        self._nvs = NVS("simpang")
        self._wlan = network.WLAN(network.WLAN.IF_STA)
        self._radio = espnow.ESPNow()
        self._failures = 0
        self.relay = Relay(self._start_radio(), _ROOM, machine.reset_cause(), version)
        self._uart = machine.UART(
            settings.uart,
            settings.baud,
            tx=settings.tx,
            rx=settings.rx,
            rxbuf=_LINE_RXBUF,
            txbuf=_LINE_TXBUF,
        )
        self._poller = select.poll()
        self._poller.register(self._uart, select.POLLIN)
        self._poller.register(self._radio, select.POLLIN)

    def uptime_ms(self) -> int:
        """Milliseconds since the start; the clock that this comes from wraps."""
        now = time.ticks_ms()
        self._uptime_ms += time.ticks_diff(now, self._last)
        self._last = now
        return self._uptime_ms

    # ---- radio

    def _start_radio(self) -> int:
        """Switch the radio on; return its channel."""
        self._wlan.active(True)
        # Otherwise it sleeps between beacons that nobody sends here, and misses frames.
        self._wlan.config(pm=network.WLAN.PM_NONE)
        channel = _FIRST_CHANNEL
        try:
            channel = self._nvs.get_i32(_KEY)
        except OSError:
            pass
        if not 1 <= channel <= LAST_CHANNEL:
            channel = _FIRST_CHANNEL
        try:
            self._wlan.config(channel=channel)
        except (OSError, ValueError, RuntimeError):
            # A channel that this country does not have: better another one than none.
            channel = _FIRST_CHANNEL
            self._wlan.config(channel=channel)
        self._radio.config(rxbuf=_RADIO_RXBUF)
        self._radio.active(True)
        self._radio.add_peer(BROADCAST)
        return channel

    def _restart_radio(self) -> None:
        self._failures = 0
        self._radio.active(False)
        self.relay.forget_peers()
        self.relay.channel = self._start_radio()

    def _tune(self, channel: int) -> None:
        """Change the channel, and keep it; one that the radio refuses changes nothing."""
        try:
            self._wlan.config(channel=channel)
        except (OSError, ValueError, RuntimeError):
            return
        self.relay.channel = channel
        try:
            self._nvs.set_i32(_KEY, channel)
            self._nvs.commit()
        except OSError:
            pass

    def _send(self, mac: bytes, frame: bytes) -> None:
        radio, relay = self._radio, self.relay
        acknowledged = False
        fresh, out = relay.admit(mac)
        if out is not None:
            self._remove(out)
        try:
            if fresh:
                radio.add_peer(mac)
            acknowledged = radio.send(mac, frame)
            self._failures = 0
        except OSError:
            # Whatever is wrong, the next frame to this radio begins with a fresh registration.
            self._failures += 1
            relay.forget(mac)
            if mac != BROADCAST:
                self._remove(mac)
        relay.sent(acknowledged)
        if self._failures >= _FAILURES:
            self._restart_radio()

    def _remove(self, mac: bytes) -> None:
        try:
            self._radio.del_peer(mac)
        except OSError:
            pass

    # ---- running

    def turn(self) -> int:
        """Do what is due; return the milliseconds until something may be due again."""
        relay, uart, radio = self.relay, self._uart, self._radio
        now_ms = self.uptime_ms()
        # What finds no place yet waits in the driver's buffer.
        for _ in range(_READS):
            data = uart.read(_READ_BYTES) if relay.waiting < _WAITING else None
            if not data:
                break
            relay.feed(data)
        if relay.wanted:
            if relay.wanted != relay.channel:
                self._tune(relay.wanted)
            relay.wanted = 0
        more = False
        for count in range(_PACKETS + 1):
            more = radio.any()
            if not more or count == _PACKETS:
                break
            mac, packet = radio.irecv(0)
            if mac is None or packet is None:
                continue
            data = relay.heard(bytes(mac), radio.peers_table[mac][0], bytes(packet), now_ms)
            if data and uart.write(data) != len(data):
                relay.not_written()
        for _ in range(_SENDS):
            entry = relay.next_send()
            if entry is None:
                break
            self._send(entry[0], entry[1])
        if relay.health_due(now_ms):
            if len(radio.peers_table) > _STRANGERS and now_ms > _STRANGERS_AFTER_MS:
                machine.reset()
            gc.collect()
            uart.write(relay.health(now_ms, gc.mem_free(), radio.stats()[4]))
        return 0 if more else min(_LONGEST_WAIT_MS, relay.wait_ms(now_ms))

    def run(self, watchdog: "machine.WDT") -> None:
        """Run for ever."""
        while True:
            wait = self.turn()
            watchdog.feed()
            if wait > 0:
                self._poller.poll(wait)


def main(watchdog: "machine.WDT") -> None:
    """Start the bridge; called by main.py."""
    data = None
    try:
        with open(CONFIG_FILE, "rb") as file:
            data = file.read(config.MAX_BYTES + 1)
    except OSError:
        pass
    version = VERSION
    try:
        settings = config.load(data)
    except ValueError as error:
        print("%s: %s" % (CONFIG_FILE, error))
        settings = config.load(None)
        # So that the gateway shows it too.
        version += " wrong " + CONFIG_FILE
    # What comes on the line is no keyboard: a byte 3 in a frame must not stop the bridge.
    micropython.kbd_intr(-1)
    app = App(settings, version)
    gc.collect()
    app.run(watchdog)
