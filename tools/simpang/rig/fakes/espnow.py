# ESP-NOW of the virtual board: packets go through the rig's air (rig/air.py) as datagrams on 127.0.0.1. As on
# the chip, a packet that comes while the receive buffer is full is lost, although its sender was told that it
# arrived; as many radios as the chip takes can be registered; errors have the chip's numbers and names.
# Deviations: a packet has at most 250 bytes each way, as between radios of the first version, and the buffer
# is filled whenever this module is called, from what the host kept until then.
import io
import socket

import _rig
import network
from micropython import const

MAX_DATA_LEN = 1470
ADDR_LEN = 6
KEY_LEN = 16
MAX_TOTAL_PEER_NUM = 20
MAX_ENCRYPT_PEER_NUM = 6

_LONGEST = const(250)
_BROADCAST = b"\xff\xff\xff\xff\xff\xff"
# Header and address of a packet in the receive buffer; two of the longest fit by default.
_HEAD = const(16)
_RXBUF = const(2972)
_IOCTL_FILENO = const(10)
_ETIMEDOUT = const(116)
# How long the chip waits for the other radio's acknowledgement.
_ANSWER_S = 0.1
_ERRORS = {
    "NOT_INIT": 12389,
    "ARG": 12390,
    "NO_MEM": 12391,
    "FULL": 12392,
    "NOT_FOUND": 12393,
    "EXIST": 12395,
    "IF": 12396,
    "CHAN": 12397,
}


def _fail(name):
    raise OSError(-_ERRORS[name], "ESP_ERR_ESPNOW_" + name)


def _mac(mac):
    if len(mac) != 6:
        raise ValueError("invalid buffer length")
    return bytes(mac)


class _Radio(io.IOBase):
    def __init__(self):
        self._air = socket.getaddrinfo("127.0.0.1", _rig.call(b"O"))[0][-1]
        self._ear = None
        self._mouth = None
        self._size = _RXBUF
        self._number = 0
        self.peers_table = {}
        self._reset()
        network.tuned = self._tuned

    def _reset(self):
        self._packets = []
        self._held = 0
        self._peers = {}
        self._stats = [0, 0, 0, 0, 0]

    # ---- the air

    def _tuned(self):
        if self._ear is not None:
            channel = network.channel if network.active else 0
            self._ear.sendto(b"J" + _rig.uid + bytes((channel,)), self._air)
            # So that nothing is said on the old channel after this.
            self._ask(b"?" + _rig.uid)

    def _ask(self, datagram):
        # The answer of the air to this datagram, or None.
        self._number = (self._number + 1) & 255
        self._mouth.send(bytes((self._number,)) + datagram)
        while True:
            try:
                answer = self._mouth.recv(16)
            except OSError:
                return None
            if answer and answer[0] == self._number:
                return answer

    def _fill(self):
        while True:
            try:
                data = self._ear.recv(1600)
            except OSError:
                return
            need = _HEAD + len(data) - 7
            if self._held + need >= self._size:
                self._stats[4] += 1
                continue
            self._held += need
            self._stats[3] += 1
            self._packets.append(data)

    # ---- as on the board

    def active(self, on=None):
        if on and self._ear is None:
            self._reset()
            self._memory = bytearray(self._size)
            self._ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._ear.setblocking(False)
            self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._mouth.connect(self._air)
            self._mouth.settimeout(_ANSWER_S)
            self._tuned()
        elif on is not None and not on and self._ear is not None:
            self._ear.sendto(b"J" + _rig.uid + b"\0", self._air)
            self._ear.close()
            self._mouth.close()
            self._ear = self._mouth = None
        return self._ear is not None

    def _need(self):
        if self._ear is None:
            _fail("NOT_INIT")

    def config(self, *names, **values):
        if names:
            if names[0] == "rxbuf":
                return self._size
            raise ValueError("unknown config param")
        for name in values:
            if name not in ("rxbuf", "timeout_ms", "rate"):
                raise TypeError("unexpected keyword argument")
        if "rxbuf" in values:
            # Takes effect at the next active(True).
            self._size = values["rxbuf"]

    def add_peer(self, mac, lmk=None, channel=None, ifidx=None, encrypt=None):
        self._need()
        mac = _mac(mac)
        if mac in self._peers:
            _fail("EXIST")
        if len(self._peers) >= MAX_TOTAL_PEER_NUM:
            _fail("FULL")
        if channel and channel != network.channel:
            _fail("CHAN")
        self._peers[mac] = True

    def del_peer(self, mac):
        self._need()
        if self._peers.pop(_mac(mac), None) is None:
            _fail("NOT_FOUND")

    def peer_count(self):
        self._need()
        return len(self._peers), 0

    def send(self, mac, msg, sync=True):
        self._need()
        mac = _mac(mac)
        if not 0 < len(msg) <= _LONGEST:
            _fail("ARG")
        if mac not in self._peers:
            _fail("NOT_FOUND")
        if not network.active:
            _fail("IF")
        answer = self._ask(b"S" + mac + _rig.uid + bytes(msg))
        self._stats[0] += 1
        if answer is None:
            if sync:
                raise OSError(_ETIMEDOUT)
            return True
        self._stats[1] += 1
        if answer[1]:
            return True
        self._stats[2] += 1
        return not sync

    def any(self):
        self._need()
        self._fill()
        return bool(self._packets)

    def recv(self, timeout_ms=None):
        self._need()
        if timeout_ms != 0:
            raise NotImplementedError("the virtual board does not wait for packets: use select.poll")
        self._fill()
        if not self._packets:
            return None, None
        data = self._packets.pop(0)
        self._held -= _HEAD + len(data) - 7
        mac = data[:6]
        entry = self.peers_table.get(mac)
        if entry is None:
            entry = self.peers_table[mac] = [0, 0]
        entry[0] = data[6] - 256
        return mac, data[7:]

    def irecv(self, timeout_ms=None):
        mac, data = self.recv(timeout_ms)
        return mac, data if data is None else bytearray(data)

    def stats(self):
        return tuple(self._stats)

    def ioctl(self, request, arg):
        # A real descriptor, so that poll(2) wakes. Whoever polls has taken all packets before.
        if request == _IOCTL_FILENO and self._ear is not None:
            return self._ear.fileno()
        return 0 if request == 4 else -22


_radio = _Radio()


def ESPNow():
    # One object, as on the board.
    return _radio
