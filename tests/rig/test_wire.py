"""The line between node and gateway: what passes, what is lost, and what the test can do to it."""

import asyncio
import os
from pathlib import Path

import pytest
import serial

from simpang.rig import Capture, DropFrames, FlipBit, RigError, read_capture

ECHO = """
import asyncio, machine
async def main():
    uart = machine.UART(1, 115200, rxbuf=1024)
    stream = asyncio.StreamReader(uart)
    print("ready")
    while True:
        stream.write(await stream.read(64))
        await stream.drain()
asyncio.run(main())
"""

# Says "ready" and then reads nothing until the host sets pin 4.
DEAF = """
import machine, time
uart = machine.UART(1, 115200, rxbuf=256)
pin = machine.Pin(4, machine.Pin.IN)
print("ready")
while not pin.value():
    time.sleep_ms(1)
total = 0
while True:
    data = uart.read()
    if not data:
        break
    total += len(data)
print("read", total)
"""


TALKATIVE = """
import machine
uart = machine.UART(1)
for _ in range(4000):
    uart.write(b"x" * 250)
print("done")
"""


async def test_bytes_go_through_the_pty_and_back(make_node, open_port):
    node = make_node(ECHO, link=1)
    await node.power_on()
    await node.wait_line("ready")
    port = open_port(node)
    for size in (1, 40, 300):
        sent = bytes(range(1, 251)) * 2
        port.write(sent[:size])
        assert await port.take(size) == sent[:size]
    # Nothing of the terminal's own: no echo, no translation, no control characters.
    special = b"\x00\x03\x04\x0a\x0d\x11\x13\x1a\x7f\xff"
    port.write(special)
    assert await port.take(len(special)) == special
    assert node.wire.up_bytes == node.wire.down_bytes == 351


async def test_pyserial_opens_the_line(make_node):
    node = make_node(ECHO, link=1)
    await node.power_on()
    await node.wait_line("ready")

    def talk() -> bytes:
        with serial.Serial(node.url, 115200, timeout=5, exclusive=True) as port:
            port.write(b"over pyserial")
            return port.read(13)

    assert await asyncio.to_thread(talk) == b"over pyserial"


async def test_blocked_wire_loses_bytes_and_never_blocks_the_node(make_node):
    node = make_node(TALKATIVE, link=1)
    await node.power_on()
    await node.wait_line("done", timeout_s=20)
    await node.wait_state("halted")
    wire = node.wire
    assert wire.lost_up > 0
    # All are accounted for: on the pty, lost there, or lost before it where the host was too slow.
    assert wire.up_bytes + wire.lost_up + node.uarts[1].lost == 1_000_000


async def test_unread_bytes_over_the_receive_buffer_are_lost_and_counted(make_node, open_port):
    node = make_node(DEAF, link=1)
    await node.power_on()
    await node.wait_line("ready")
    open_port(node).write(b"y" * 1000)
    await node.wait_for(lambda: node.uarts[1].overflow == 744)
    node.board.set_input(4, 1)
    await node.wait_line("read 256")


async def test_node_that_reads_gets_a_long_burst_whole(make_node, open_port):
    node = make_node(ECHO, link=1)
    await node.power_on()
    await node.wait_line("ready")
    port = open_port(node)
    burst = bytes(index % 251 for index in range(4000))
    port.write(burst)
    assert await port.take(4000) == burst
    assert node.uarts[1].overflow == 0


DARK = """
import machine, time
print("dark")
pin = machine.Pin(4, machine.Pin.IN)
while not pin.value():
    time.sleep_ms(1)
uart = machine.UART(1)
print("any", uart.any(), uart.read())
"""


async def test_bytes_for_a_closed_uart_go_nowhere(make_node, open_port):
    node = make_node(DARK, link=1)
    await node.power_on()
    await node.wait_line("dark")
    open_port(node).write(b"too early")
    await node.wait_for(lambda: node.wire.down_bytes == 9)
    node.board.set_input(4, 1)
    await node.wait_line("any 0 None")


async def test_unplugged_line_is_gone_and_comes_back_at_the_same_path(make_node, open_port):
    node = make_node(ECHO, link=1)
    await node.power_on()
    await node.wait_line("ready")
    port = open_port(node)
    node.wire.unplug()
    node.wire.unplug()
    assert not os.path.lexists(node.url)
    await asyncio.wait_for(port.gone.wait(), 5)
    with pytest.raises(FileNotFoundError):
        open_port(node)
    node.wire.inject(b"lost")
    await node.wait_for(lambda: node.wire.lost_unplugged == 4)
    node.wire.plug()
    node.wire.plug()
    again = open_port(node)
    again.write(b"again")
    assert await again.take(5) == b"again"


async def test_line_stays_while_the_gateway_comes_and_goes(make_node, open_port):
    node = make_node(ECHO, link=1)
    await node.power_on()
    await node.wait_line("ready")
    for word in (b"first", b"second"):
        port = open_port(node)
        port.write(word)
        assert await port.take(len(word)) == word
        port.close()
    assert node.wire.plugged


async def test_filters_and_injection_and_capture(make_node, open_port, tmp_path: Path):
    path = tmp_path / "line.jsonl"
    with Capture(path, clock=lambda: 1792756800.25) as capture:
        node = make_node(ECHO, link=1, capture=capture)
        await node.power_on()
        await node.wait_line("ready")
        port = open_port(node)
        node.wire.down = lambda data: data.replace(b"a", b"")
        node.wire.up = bytes.upper
        port.write(b"banana")
        assert await port.take(3) == b"BNN"
        node.wire.inject(b"noise", "down")
        assert await port.take(5) == b"NOISE"
        node.wire.inject(b"rogue", "up")
        assert await port.take(5) == b"rogue"
        await node.stop()
    pieces = list(read_capture(path))
    assert {(piece.port, piece.t) for piece in pieces} == {("n1", 1792756800.25)}
    # The capture holds what the gateway's end saw.
    assert b"".join(piece.data for piece in pieces if piece.direction == "up") == b"BNNNOISErogue"
    assert b"".join(piece.data for piece in pieces if piece.direction == "down") == b"banana"


def test_capture_that_is_none_is_refused_with_its_line(tmp_path: Path):
    path = tmp_path / "bad.jsonl"
    good = '{"t":1.5,"port":"p","dir":"up","hex":"00ff"}\n'
    start = '{"t":1,"port":"p","dir":'
    for bad in ("x", "{}", start + '"left","hex":""}', start + '"up","hex":"0"}'):
        path.write_text(good + bad + "\n")
        with pytest.raises(RigError, match="line 2"):
            list(read_capture(path))


def test_flipped_bit_hits_the_chosen_frame_once():
    stream = b"\x00first\x00second\x00third\x00"
    for chunk in (1, 3, len(stream)):
        flip = FlipBit(frame=2, offset=3, bit=2)
        out = b"".join(flip(stream[at : at + chunk]) for at in range(0, len(stream), chunk))
        assert out == b"\x00first\x00secknd\x00third\x00"
        assert flip.done
    short = FlipBit(frame=1, offset=5)
    assert short(b"abc\x00abcdef\x00") == b"abc\x00abcdeg\x00"


def test_frames_are_dropped_whole_and_the_same_for_the_same_seed(seed: int):
    frames = [bytes([1 + index % 255]) * (1 + index % 40) for index in range(500)]
    stream = b"".join(frame + b"\x00" for frame in frames)
    results = []
    for chunk in (1, 7, 4096):
        drop = DropFrames(0.3, seed)
        out = b"".join(drop(stream[at : at + chunk]) for at in range(0, len(stream), chunk))
        kept = [frame for frame in out.split(b"\x00") if frame]
        assert all(frame in frames for frame in kept)
        assert len(kept) == drop.passed
        assert drop.passed + drop.dropped == 500
        results.append(out)
    assert results[0] == results[1] == results[2]
    assert 80 < drop.dropped < 220
    assert DropFrames(0.0)(stream) == stream
    assert DropFrames(1.0)(stream) == b"\x00" * 500


async def test_console_and_frames_share_the_line_on_usb(make_node, open_port):
    node = make_node(
        "import machine\nuart = machine.UART(0)\n"
        "print('{\"code\":\"a.event\",\"n\":1}')\nuart.write(b'\\x00\\x01\\x0a\\xfe\\x00')\nprint('after')\n",
        link=0,
    )
    await node.power_on()
    await node.wait_state("halted")
    port = open_port(node)
    expected = b'{"code":"a.event","n":1}\n\x00\x01\x0a\xfe\x00after\n'
    assert await port.take(len(expected)) == expected
    assert [event["code"] for event in node.console] == ["a.event"]
    assert list(node.console.lines) == ["after"]
