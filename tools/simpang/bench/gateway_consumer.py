"""The consumer of `simpang bench gateway`: a lean MQTT 3.1.1 subscriber that counts records by identity.

It takes every message at QoS 1, marks each record's identity, and keeps a few whole messages to be compared
with what was sent. A page of shared memory says how far it is, so that nobody need ask.

Arguments: port, topic filter, file of the shared page. Reads `result FILE EXPECTED [times]` or `close` from
standard input.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import select
import socket
import struct
import sys
import time
from array import array

PAGE = struct.Struct("<QQQd")
"""Records, repeated ones, messages, monotonic seconds of the newest."""

SEQS = 1 << 16
KEPT_MESSAGES = 40
_KEPT_EVERY = (1, 7, 50, 400)
_CHUNK = 1 << 18
_RECORD = re.compile(rb'"id": ?\[(\d+), ?(\d+), ?(\d+)\], ?"row": ?(\d+)')


class Counter:
    """Counts messages and records, and finds what came twice or out of order."""

    def __init__(self) -> None:
        self.records = self.repeated = self.disordered = self.messages = self.bytes = 0
        self.seen: dict[tuple[bytes, bytes], bytearray] = {}
        self.times: dict[tuple[bytes, bytes], array[float]] = {}
        self.alarms: set[str] = set()
        self.kept: list[bytes] = []
        self._rows: dict[bytes, int] = {}

    def take(self, topic: bytes, payload: bytes, now: float) -> None:
        """Take a message that came at `now`, monotonic seconds."""
        if b"/gateway/" in topic:
            if b"/alarm/" in topic and payload:
                self.alarms.add(topic.rpartition(b"/")[2].decode())
            return
        self.messages += 1
        self.bytes += len(payload)
        # Some of the first messages and fewer of the later ones.
        every = _KEPT_EVERY[min(len(self.kept) * len(_KEPT_EVERY) // KEPT_MESSAGES, len(_KEPT_EVERY) - 1)]
        if len(self.kept) < KEPT_MESSAGES and self.messages % every == 0:
            self.kept.append(payload)
        last = self._rows.get(topic, 0)
        for node, epoch, seq, row in _RECORD.findall(payload):
            place = (node, epoch)
            seen = self.seen.get(place)
            if seen is None:
                seen = self.seen[place] = bytearray(SEQS)
                self.times[place] = array("d", bytes(8 * SEQS))
            number = int(seq)
            if seen[number]:
                self.repeated += 1
            else:
                seen[number] = 1
                self.records += 1
                self.times[place][number] = now
            at = int(row)
            self.disordered += at <= last
            last = at
        self._rows[topic] = last

    def result(self, expected: int, times: bool) -> dict[str, object]:
        """Return the counts; `expected` seqs of each epoch were sent."""
        places = [
            {
                "node": int(node),
                "epoch": int(epoch),
                "records": sum(seen[:expected]),
                "surplus": sum(seen[expected:]),
                "times": self.times[node, epoch][:expected].tolist() if times else [],
            }
            for (node, epoch), seen in self.seen.items()
        ]
        return {
            "records": self.records,
            "repeated": self.repeated,
            "disordered": self.disordered,
            "messages": self.messages,
            "bytes": self.bytes,
            "alarms": sorted(self.alarms),
            "places": places,
            "kept": [payload.decode() for payload in self.kept],
        }


def _packets(buffer: bytearray) -> tuple[list[tuple[int, int, int]], int]:
    """Return (first byte, start and end of the rest) of each whole packet, and where the next one begins."""
    found = []
    at, size = 0, len(buffer)
    while size - at >= 2:
        length = shift = 0
        start = at + 1
        while start < size:
            byte = buffer[start]
            length |= (byte & 127) << shift
            shift += 7
            start += 1
            if byte < 128:
                break
        else:
            break
        if start + length > size:
            break
        found.append((buffer[at], start, start + length))
        at = start + length
    return found, at


def _connect(port: int, topic: bytes) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = b"bench-consumer"
    link.sendall(bytes((0x10, 12 + len(name))) + b"\0\4MQTT\4\2\0\0\0" + bytes((len(name),)) + name)
    if link.recv(4)[3:] != b"\0":
        raise SystemExit("the broker refused the consumer")
    head = b"\0\1" + len(topic).to_bytes(2, "big") + topic + b"\1"
    link.sendall(bytes((0x82, len(head))) + head)
    if link.recv(5)[4:] != b"\1":
        raise SystemExit("the broker refused the subscription")
    return link


def main() -> None:
    """Subscribe, say `ready`, and count until told to close."""
    link = _connect(int(sys.argv[1]), sys.argv[2].encode())
    counter = Counter()
    with open(sys.argv[3], "w+b") as file:
        os.ftruncate(file.fileno(), PAGE.size)
        page = mmap.mmap(file.fileno(), PAGE.size)
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN)
    buffer = bytearray()
    print("ready", flush=True)
    while True:
        ready = dict(poll.poll())
        if sys.stdin.fileno() in ready:
            words = os.read(sys.stdin.fileno(), 4096).decode().split()
            if not words or words[0] == "close":
                return
            with open(words[1], "w") as file_out:
                json.dump(counter.result(int(words[2]), len(words) > 3), file_out)
            print("done", flush=True)
        if link.fileno() not in ready:
            continue
        data = link.recv(_CHUNK)
        if not data:
            raise SystemExit("the broker ended the connection")
        now = time.monotonic()
        buffer += data
        packets, end = _packets(buffer)
        answers = bytearray()
        for kind, start, stop in packets:
            if kind >> 4 != 3:
                continue
            after = start + 2 + (buffer[start] << 8 | buffer[start + 1])
            topic = bytes(buffer[start + 2 : after])
            if kind & 6:
                answers += b"\x40\2" + buffer[after : after + 2]
                after += 2
            counter.take(topic, bytes(buffer[after:stop]), now)
        del buffer[:end]
        if answers:
            link.sendall(answers)
        page[:] = PAGE.pack(counter.records, counter.repeated, counter.messages, now)


if __name__ == "__main__":
    main()
