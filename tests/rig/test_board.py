"""What stands around the processor: I2C and UART devices, pins, analog inputs, temperature."""

import asyncio
import json

import pytest

from simpang.rig import Air, RigError, VirtualNode


class Eeprom:
    """A toy: 16 registers behind an address byte that counts up."""

    def __init__(self, address: int = 0x50) -> None:
        self.ADDRESS = address
        self.silent = False
        self.busy = False
        self.registers = bytearray(16)
        self.at = 0
        self.times: list[int] = []

    def write(self, data: bytes, now_ms: int) -> None:
        self.times.append(now_ms)
        if self.busy:
            raise OSError(110, "busy")
        self.at = data[0] % 16
        for byte in data[1:]:
            self.registers[self.at] = byte
            self.at = (self.at + 1) % 16

    def read(self, n: int, now_ms: int) -> bytes:
        self.times.append(now_ms)
        return bytes(self.registers[(self.at + index) % 16] for index in range(n))


class Teller:
    """A toy on a UART: answers each byte with the next letter, and says "tick" by itself."""

    BAUD = 9600

    def __init__(self) -> None:
        self.heard = b""
        self.out = b""

    def feed(self, data: bytes, now_ms: int) -> None:
        self.heard += data
        self.out += bytes(byte + 1 for byte in data)

    def poll(self, now_ms: int) -> tuple[bytes, int]:
        out, self.out = self.out, b""
        return out, now_ms + 60_000


I2C = """
import machine
i2c = machine.I2C(0, scl=machine.Pin(22), sda=machine.Pin(21), freq=100_000)
def fails(what, *a):
    try:
        print(what(*a))
    except OSError as e:
        print("errno", e.errno)
print(i2c.scan())
print(i2c.writeto(0x50, b"\\x02abc"))
i2c.writeto(0x50, b"\\x02")
print(i2c.readfrom(0x50, 3))
print(i2c.readfrom_mem(0x50, 3, 2))
i2c.writeto_mem(0x50, 15, b"yz")
b = bytearray(2)
i2c.readfrom_mem_into(0x50, 15, b)
print(b)
i2c.readfrom_into(0x50, b)
print(i2c.writevto(0x50, (b"\\x00", b"AB")))
fails(i2c.readfrom, 0x33, 1)
fails(machine.I2C(1).scan)
"""


async def test_i2c_round_trip(make_node):
    device, other = Eeprom(), Eeprom(0x77)
    node = make_node(I2C, models={"i2c0": [device, other]})
    await node.power_on()
    await node.wait_state("halted")
    assert list(node.console.lines) == [
        "[80, 119]",
        "4",
        "b'abc'",
        "b'bc'",
        "bytearray(b'yz')",
        "3",
        "errno 19",
        "[]",
    ]
    assert device.registers == b"ABabc" + bytes(10) + b"y"
    assert device.times == sorted(device.times)


# Tries to write three times; before the second and the third it waits for pin 12, then 13.
THREE_TRIES = """
import machine, time
i2c = machine.I2C(0)
for step in range(3):
    while step and not machine.Pin(11 + step).value():
        time.sleep_ms(1)
    try:
        i2c.writeto(0x50, b"x")
        print(step, "ok")
    except OSError as error:
        print(step, error.errno)
"""


async def test_silent_device_is_absent_and_an_error_of_a_device_reaches_the_firmware(make_node):
    device = Eeprom()
    node = make_node(THREE_TRIES, models={"i2c0": [device]})
    device.silent = True
    await node.power_on()
    await node.wait_line("0 19")
    device.silent, device.busy = False, True
    node.board.set_input(12, 1)
    await node.wait_line("1 110")
    device.busy = False
    node.board.set_input(13, 1)
    await node.wait_line("2 ok")


async def test_model_that_breaks_its_promise_ends_the_board_and_is_told(make_node):
    device = Eeprom()
    device.read = lambda n, now_ms: b""  # type: ignore[method-assign]
    node = make_node("import machine\nmachine.I2C(0).readfrom(0x50, 4)", models={"i2c0": [device]})
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
    await node.power_on()
    await node.wait_state("halted")
    assert "0 bytes of 4" in told[0]
    assert node.boots == 1


TALK = """
import machine, select
uart = machine.UART(1, 9600, tx=17, rx=16)
poll = select.poll()
poll.register(uart, select.POLLIN)
def read(count):
    data = b""
    while len(data) < count:
        poll.poll()
        data += uart.read()
    return data
uart.write(b"abc")
print(read(3))
print(uart.any(), uart.read())
buffer = bytearray(4)
uart.write(b"xy")
while uart.any() < 2:
    poll.poll()
print(uart.readinto(buffer), buffer)
uart.write(bytes(96))
print(uart.txdone())
uart.flush()
print(uart.txdone())
"""


async def test_uart_model_speaks_and_answers(make_node):
    teller = Teller()
    teller.out = b"spoken before the board has opened its UART"
    node = make_node(TALK, models={"uart1": teller})
    await node.power_on()
    await node.wait_state("halted")
    assert list(node.console.lines) == ["b'bcd'", "0 None", r"2 bytearray(b'yz\x00\x00')", "False", "True"]
    assert teller.heard == b"abcxy" + bytes(96)


async def test_wrong_baud_rate_gives_other_bytes(make_node):
    teller = Teller()
    node = make_node(TALK.replace("9600", "115200"), models={"uart1": teller})
    await node.power_on()
    await node.wait_state("halted")
    assert node.console.lines[0] != "b'bcd'"
    assert teller.heard[:3] != b"abc"
    assert len(teller.heard) == 101


PINS = """
import machine, esp32, time
from machine import Pin
led = Pin(2, Pin.OUT, value=1)
print(led.value(), led())
led.off()
led(1)
up, down = Pin(18, Pin.IN, Pin.PULL_UP), Pin(19, Pin.IN, Pin.PULL_DOWN)
print(up(), down())
for bad in (lambda: Pin(40), lambda: Pin(6), lambda: Pin(34, Pin.OUT)):
    try:
        bad()
        print("allowed")
    except ValueError as error:
        print(error)
print(machine.ADC(Pin(35), atten=machine.ADC.ATTN_11DB).read_uv(), esp32.raw_temperature())
while up():
    time.sleep_ms(1)
print("pressed")
led.off()
"""


async def test_pins_analog_inputs_and_temperature(make_node):
    node = make_node(PINS, env=Air(temperature=30.0))
    node.board.analog_uv[35] = 1_234_000
    await node.power_on()
    await node.wait_for(lambda: len(node.console.lines) == 6)
    assert list(node.console.lines) == ["1 1", "1 0", *["invalid pin"] * 3, "1234000 113"]
    assert node.board.levels[2] == 1
    node.board.set_input(18, 0)
    await node.wait_line("pressed")
    await node.wait_for(lambda: node.board.levels.get(2) == 0)


async def test_requests_are_cheap_and_the_heap_is_nearly_all_there(make_node):
    node = make_node(
        "import gc, json, machine\np = machine.Pin(4)\np.value()\ngc.collect()\nfree = gc.mem_free()\n"
        "for _ in range(1000): p.value()\n"
        "print(json.dumps({'code': 'heap', 'free': free, 'each': (free - gc.mem_free()) // 1000}))\n"
    )
    await node.power_on()
    heap = await node.wait_event("heap")
    # Of the 229,376 bytes of 112wk the VM itself and LittleFS take some 6 kB, the stand-ins 16 kB.
    assert heap["free"] > 200_000
    assert heap["each"] <= 64


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"models": {"uart3": Teller()}}, "uart3"),
        ({"models": {"spi0": Teller()}}, "spi0"),
        ({"models": {"uart1": Teller()}, "link": 1}, "uart1"),
    ],
)
def test_wiring_that_no_board_has_is_refused(tmp_path, options, word):
    with pytest.raises(RigError, match=word):
        VirtualNode("n", tmp_path / "n", **options)


CHATTER = r"""
print('{"code":"x.y","n":0}')
print("{no event}")
print('{"no":"code"}')
print("\x01 control")
for n in range(6000):
    print('{"code":"many","n":%d}' % n)
for n in range(3000):
    print("line", n)
print("z" * 10000)
print("end")
"""


async def test_console_keeps_events_and_lines_apart_and_both_bounded(make_node):
    seen: list[object] = []
    node = make_node(CHATTER, on_event=seen.append)
    await node.power_on()
    await node.wait_line("end", timeout_s=20)
    assert node.console.total == len(seen) == 6001
    assert len(node.console) == 5000
    assert [event["n"] for event in node.console.since(5999)] == [5998, 5999]
    assert json.dumps(list(node.console)[-1]) == '{"code": "many", "n": 5999}'
    assert len(node.console.lines) == 2000
    assert max(map(len, node.console.lines)) == 4096


EDGES = """
import machine, select, time
from machine import Pin
button, quiet = Pin(18, Pin.IN, Pin.PULL_UP), Pin(19, Pin.IN, Pin.PULL_UP)
seen = []
def hear(pin):
    seen.append((pin is button, pin()))
    if len(seen) == 3:
        raise RuntimeError("of a handler")
button.irq(hear, Pin.IRQ_FALLING | Pin.IRQ_RISING)
quiet.irq(hear, trigger=Pin.IRQ_FALLING)
poller = select.poll()
poller.register(machine.UART(1, 9600), select.POLLIN)
print("ready")
while len(seen) < 5:
    print("woke", poller.poll(60_000) != [])
print(seen)
button.irq(None)
state = machine.disable_irq()
while quiet():
    pass
print(len(seen))
machine.enable_irq(state)
print(seen[5:])
"""


async def test_interrupts_run_while_the_board_waits_and_do_not_end_the_wait(make_node):
    node = make_node(EDGES, models={"uart1": Teller()})
    await node.power_on()
    await node.wait_line("ready")
    # Open is 1 by the pull-up; the other pin tells falling edges only.
    changes = [(18, 0), (18, None), (18, 1), (18, 0), (19, 0), (19, 1), (18, None)]
    script = node.play_pins((10 * number, pin, level) for number, (pin, level) in enumerate(changes))
    await node.wait_for(lambda: script.done)
    await node.wait_line("of a handler")
    node.uarts[1].send(b"x")
    await node.wait_line("woke")
    assert [line for line in node.console.lines if "woke" in line] == ["woke True"]
    told = [(True, 0), (True, 1), (True, 0), (False, 0), (True, 1)]
    await node.wait_line(str(told))
    node.set_pin(18, 0)
    node.set_pin(19, 0)
    await node.wait_line("[(False, 0)]")
    assert list(node.console.lines)[-2:] == ["5", "[(False, 0)]"]
    assert node.edges_lost == 0


async def test_edges_that_a_hanging_board_takes_no_more_are_counted(make_node):
    node = make_node(
        "import machine\np = machine.Pin(18)\np.irq(print)\nprint('hangs')\nwhile True: pass\n"
    )
    await node.power_on()
    await node.wait_line("hangs")
    for number in range(20_000):
        node.set_pin(18, number % 2)
    assert node.edges_lost > 0
    await node.cut_power()
    node.set_pin(18, 1)


async def test_what_the_board_drives_is_kept_with_its_times(make_node):
    node = make_node(
        "import machine, time\nled = machine.Pin(2, machine.Pin.OUT, value=0)\n"
        "for level in (1, 1, 0, 1): led(level); time.sleep_ms(2)\nprint('done')\n"
    )
    await node.power_on()
    await node.wait_line("done")
    assert [level for _, level in node.board.driven[2]] == [0, 1, 0, 1]
    times = [ms for ms, _ in node.board.driven[2]]
    assert times == sorted(times) and times[-1] - times[1] >= 4


class Divider:
    """A toy at an analog input: its voltage falls with each reading."""

    def __init__(self) -> None:
        self.uv = 3_000_000

    def read_uv(self, now_ms: int) -> int:
        self.uv -= 500_000
        return self.uv


async def test_analog_model_gives_the_voltage_of_its_pin(make_node):
    node = make_node(
        "import machine\nadc = machine.ADC(machine.Pin(34))\n"
        "print(adc.read_uv(), adc.read_uv(), adc.read_u16())\n",
        models={"adc34": Divider()},
    )
    await node.power_on()
    await node.wait_line(f"2500000 2000000 {1_500_000 * 65_535 // 3_300_000}")
