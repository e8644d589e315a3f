"""A node without hardware: the real firmware on a real MicroPython VM, with power, flash, sensors and a line.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from simpang.rig import image as images
from simpang.rig import provision
from simpang.rig.air import AirWaves
from simpang.rig.board import AnalogModel, Answer, Board, Environment, I2cModel, Request
from simpang.rig.bus import Bus
from simpang.rig.capture import Capture
from simpang.rig.changes import Changes
from simpang.rig.console import Console, Event
from simpang.rig.errors import RigError
from simpang.rig.flash import Flash, PowerCutError
from simpang.rig.gpio import PinModel, PinScript, PinServer
from simpang.rig.uart import ModelServer, UartModel, UartPort, uart_number
from simpang.rig.vm import Vm
from simpang.rig.watchdog import Watchdog
from simpang.rig.wire import Wire

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5

Model = UartModel | AnalogModel | Sequence[I2cModel] | Sequence[PinModel]

OFF, RUNNING, HALTED, ASLEEP = "off", "running", "halted", "asleep"

HEAP = "112wk"
"""Heap of every node, in words of the VM, so that a 64-bit VM holds what the ESP32's 112 KB hold."""


class VirtualNode:
    """One virtual node, driven from an asyncio event loop.

    `folder` keeps what a real node keeps: the flash (flash.img) and NVS (nvs.json); it is provisioned with
    the firmware, `config` and `key` at the first power_on(), or again by provision(). `models` maps "uart1"
    to a UART model, "i2c0" to a list of I2C models, "gpio" to a list of pin models (rig/gpio.py) and "adc34"
    to the analog model at GPIO 34; `link` is the UART of the line (0: shared with the
    console, as on USB), `url` the path that the gateway opens; with `bus` the line is a station of that bus.
    `air` is where its radio is. `state` is "off", "running", "halted" (at the prompt, as after an uncaught
    exception) or "asleep". `boots` counts the starts, `resets` holds the reset cause of each of the last
    1000.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        config: Mapping[str, Any] | None = None,
        key: Mapping[str, Any] | None = None,
        env: Environment | None = None,
        models: Mapping[str, Model] | None = None,
        link: int | None = None,
        bus: Bus | None = None,
        air: AirWaves | None = None,
        firmware: Path | provision.Build | None = None,
        files: Mapping[str, bytes] | None = None,
        capture: Capture | None = None,
        on_event: Callable[[Event], None] | None = None,
        blocks: int = provision.FLASH_BLOCKS,
        heap: str = HEAP,
        cache: Path | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.config, self.key, self.files = config, key, files
        self.state = OFF
        self.boots = 0
        self.resets: deque[int] = deque(maxlen=1000)
        self.console = Console(on_event)
        self.unique_id = b"\x02" + hashlib.sha256(name.encode()).digest()[:5]
        self._changes = Changes()
        self.uarts = {number: UartPort(number, self._changes.notify) for number in range(3)}
        self.wire: Wire | None = None
        self._firmware, self._blocks, self._heap, self._cache = firmware, blocks, heap, cache
        self._fakes: Path | None = None
        self._flash: Flash | None = None
        self._vm: Vm | None = None
        self._after: tuple[str, int] | None = None
        self._wake_timer: asyncio.TimerHandle | None = None
        self.watchdog = Watchdog(self._bite)
        self._started_s = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

        buses: dict[int, Sequence[I2cModel]] = {}
        analog: dict[int, AnalogModel] = {}
        players: Sequence[PinModel] = ()
        self._servers: list[ModelServer] = []
        for place, model in (models or {}).items():
            if place in ("i2c0", "i2c1"):
                buses[int(place[3:])] = cast("Sequence[I2cModel]", model)
                continue
            if place == "gpio":
                players = cast("Sequence[PinModel]", model)
                continue
            if place.startswith("adc"):
                analog[int(place[3:])] = cast("AnalogModel", model)
                continue
            port = self.uarts[uart_number(place)]
            self._servers.append(ModelServer(cast("UartModel", model), port, self._now_ms))
        self.board = Board(folder / "nvs.json", buses, env, self._now_ms, analog, self._interrupt)
        self._players = [PinServer(player, self.set_pin, self._now_ms) for player in players]
        # Edges that the board could not take, because its processor hung.
        self.edges_lost = 0
        if link is not None:
            port = self.uarts[uart_number(f"uart{link}")]
            if port.receive is not None:
                raise RigError(f"node {name}: uart{link} has a model and the line. Move one of them.")
            if bus is not None:
                port.receive = bus.attach(name, port.send).send
            else:
                self.wire = Wire(port, folder / "line.tty", name, capture)
                if link == 0:
                    port.receive = self._shared_with_console
        self._link = link
        self._air = air
        self._requests: dict[bytes, Request] = {
            **self.board.requests,
            b"P": self._program,
            b"E": self._erase,
            b"U": self._configure_uart,
            b"N": lambda unit, arg, data: (self.uarts[unit].pending(), b""),
            b"L": self._lost_on_uart,
            b"O": self._ask_for_air,
            b"W": self._start_watchdog,
            b"F": lambda unit, arg, data: self.watchdog.feed(),
            b"X": lambda cause, arg, data: self._end(RUNNING, cause),
            b"D": lambda unit, ms, data: self._end(ASLEEP, ms),
            b"H": lambda unit, arg, data: self._end(HALTED, 0),
        }

    @property
    def url(self) -> str:
        """Path of the pty that the gateway opens. Raises RigError for a node without a line."""
        return self._line.url

    @property
    def pid(self) -> int | None:
        """Process id of the running VM, None where none runs."""
        return None if self._vm is None else self._vm.pid

    @property
    def flash(self) -> Flash:
        """The flash chip, with its counters and cut_after(). Raises RigError before the first power_on()."""
        if self._flash is None:
            raise RigError(f"node {self.name} has no flash open. Call power_on() first.")
        return self._flash

    @property
    def _line(self) -> Wire:
        if self.wire is None:
            raise RigError(f"node {self.name} has no line. Give it one with `link`.")
        return self.wire

    async def __aenter__(self) -> Self:
        await self.power_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # Power

    async def provision(self) -> None:
        """Write a fresh flash image: firmware, configuration, key. The power must be off; NVS stays as it is.
        """
        self._need_no_vm()
        await asyncio.to_thread(self._provision)

    async def power_on(self) -> None:
        """Give it power; it starts with reset cause PWRON. Does nothing where it has power."""
        if self.state != OFF:
            return
        if not (self.folder / "flash.img").exists():
            await self.provision()
        if self._fakes is None:
            self._fakes = await asyncio.to_thread(provision.fakes, self._cache)
        if self._flash is None:
            self._flash = Flash(self.folder / "flash.img")
        if self.wire is not None:
            self.wire.plug()
        for server in self._servers:
            server.start()
        for player in self._players:
            player.start()
        self._boot(PWRON_RESET)

    async def cut_power(self) -> None:
        """Take the power away at once (SIGKILL): RTC memory and what was not in flash or NVS are gone."""
        self._power_off()

    async def stop(self) -> None:
        """Cut the power, unplug the line and close the files; power_on() starts again from the same folder.
        """
        self._power_off()
        for player in self._players:
            player.stop()
        if self.wire is not None:
            self.wire.unplug()
        if self._flash is not None:
            self._flash.close()
            self._flash = None

    def wake(self) -> None:
        """End a deep sleep now. Raises RigError where the node is not asleep."""
        if self.state != ASLEEP:
            raise RigError(f"node {self.name} is {self.state}, not asleep. Wait for that state first.")
        self._boot(DEEPSLEEP_RESET)

    def set_pin(self, pin: int, level: int | None) -> None:
        """Drive an input from outside: 0, 1, or None for open; its interrupt runs on the board."""
        self.board.set_input(pin, level)
        self._changes.notify()

    def play_pins(self, changes: Iterable[tuple[int, int, int | None]]) -> PinScript:
        """Change inputs from now on: (ms from now, GPIO, level), in order. Returns what says when it is done.
        """
        script = PinScript(changes)
        player = PinServer(script, self.set_pin, self._now_ms)
        self._players.append(player)
        player.start()
        return script

    def erase_nvs(self) -> None:
        """Erase non-volatile storage, as after its partition was damaged."""
        self.board.nvs.erase()

    # Looking at it

    async def wait_for(self, predicate: Callable[[], object], timeout_s: float = 10, what: str = "") -> None:
        """Wait until `predicate()` is true; it is asked after everything the node does.

        Raises RigError at the deadline, with the state and the end of the console.
        """
        try:
            await self._changes.wait_for(predicate, timeout_s)
        except TimeoutError:
            tail = [str(event) for event in self.console.events][-5:] + list(self.console.lines)[-15:]
            raise RigError(
                f"node {self.name}: {what or 'what was awaited'} did not come in {timeout_s} s; it is "
                f"{self.state} after {self.boots} boots. Its last words:\n" + "\n".join(tail)
            ) from None

    async def wait_event(self, code: str, *, after: int = 0, timeout_s: float = 10) -> Event:
        """First console event with this code after the mark `after` (an earlier console.total; 0: from the
        start).
        """
        await self.wait_for(lambda: self._find(code, after), timeout_s, f"event {code!r}")
        found = self._find(code, after)
        assert found is not None
        return found

    async def wait_line(self, text: str, *, timeout_s: float = 10) -> str:
        """First console line (no event) that contains `text`."""
        lines = self.console.lines
        await self.wait_for(lambda: any(text in line for line in lines), timeout_s, f"line {text!r}")
        return next(line for line in lines if text in line)

    async def wait_state(self, state: str, *, timeout_s: float = 10) -> None:
        """Wait until the node is "off", "running", "halted" or "asleep"."""
        await self.wait_for(lambda: self.state == state, timeout_s, f"state {state!r}")

    async def wait_boots(self, count: int, *, timeout_s: float = 10) -> None:
        """Wait until the node has started `count` times in all."""
        await self.wait_for(lambda: self.boots >= count, timeout_s, f"boot {count}")

    def read_file(self, path: str) -> bytes:
        """Content of a file on the node's flash. No VM may run: cut the power first."""
        self._need_no_vm()
        return images.read_file(self.folder / "flash.img", path)

    def list_files(self) -> dict[str, int]:
        """All files on the node's flash with their sizes. No VM may run: cut the power first."""
        self._need_no_vm()
        return images.list_files(self.folder / "flash.img")

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Write files on the node's flash, as a technician does. No VM may run: cut the power first."""
        self._need_no_vm()
        images.write_files(self.folder / "flash.img", files)

    # Inside

    def _interrupt(self, pin: int, level: int) -> None:
        if self._vm is not None and not self._vm.interrupt(pin, level):
            self.edges_lost += 1

    def _now_ms(self) -> int:
        return int((time.monotonic() - self._started_s) * 1000)

    def _find(self, code: str, after: int) -> Event | None:
        return next((event for event in self.console.since(after) if event["code"] == code), None)

    def _need_no_vm(self) -> None:
        if self._vm is not None:
            raise RigError(f"node {self.name} runs and owns its flash. Call cut_power() first.")

    def _provision(self) -> None:
        base = self._firmware
        if not isinstance(base, provision.Build):
            base = provision.build(base, blocks=self._blocks, cache=self._cache)
        provision.make_image(self.folder / "flash.img", base, self.config, self.key, self.files)

    def _shared_with_console(self, data: bytes) -> None:
        self._on_console(data)
        self._line.from_board(data)

    def _on_console(self, data: bytes) -> None:
        self.console.feed(data)
        self._changes.notify()

    def _boot(self, cause: int) -> None:
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        assert self._fakes is not None and self._flash is not None
        if cause != SOFT_RESET:
            self.watchdog.stop()
        self.board.restarted()
        self._after = None
        uarts = {number: port.connect() for number, port in self.uarts.items()}
        self._vm = Vm(
            self._fakes,
            heap=self._heap,
            flash=self._flash,
            cause=cause,
            unique_id=self.unique_id,
            uarts=uarts,
            console_fd=uarts[0] if self._link == 0 else None,
            serve=self._serve,
            on_console=self._on_console,
            on_exit=self._on_exit,
        )
        self.boots += 1
        self.resets.append(cause)
        self.state = RUNNING
        self._changes.notify()

    def _serve(self, letter: bytes, unit: int, argument: int, data: bytes) -> Answer | None:
        request = self._requests.get(letter)
        if request is None:
            raise RigError(f"node {self.name} asked {letter!r}, unknown here. Clear the cache of the rig.")
        served = False
        try:
            answer = request(unit, argument, data)
            served = True
        finally:
            if not served:
                # A model failed, and the board waits for an answer that will not come. The error itself goes
                # to the event loop's handler.
                self._end(HALTED, 0)
        if letter not in b"PEF":
            self._changes.notify()
        return answer

    def _end(self, state: str, argument: int) -> None:
        """The processor stops; `state` comes next: RUNNING with a cause, ASLEEP with ms (-1 for ever),
        HALTED, OFF.
        """
        self._after = (state, argument)
        if self._vm is not None:
            self._vm.kill()

    def _on_exit(self, code: int) -> None:
        self._vm = None
        for port in self.uarts.values():
            port.disconnect()
        self.console.end()
        # Without a request before it, a signal is a crash of the chip, and the rest an exit at start-up.
        state, argument = self._after or ((RUNNING, HARD_RESET) if code < 0 else (HALTED, 0))
        self.state = state
        if state == RUNNING:
            self._boot(argument)
        elif state == OFF:
            self._without_power()
        elif state == ASLEEP:
            self.watchdog.stop()
            self.board.restarted()
            if argument >= 0:
                self._wake_timer = asyncio.get_running_loop().call_later(argument / 1000, self.wake)
        self._changes.notify()

    def _power_off(self) -> None:
        self._end(OFF, 0)
        if self._vm is not None:
            self._vm.reap()
        elif self.state != OFF:
            self.state = OFF
            self._without_power()
            self._changes.notify()

    def _without_power(self) -> None:
        self.watchdog.stop()
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        self.board.power_lost()
        for server in self._servers:
            server.stop()

    def _bite(self) -> None:
        if self._vm is None:
            self._boot(WDT_RESET)
        else:
            self._end(RUNNING, WDT_RESET)

    def _ask_for_air(self, _unit: int, _arg: int, _data: bytes) -> Answer:
        return (-errno.ENODEV if self._air is None else self._air.port), b""

    def _start_watchdog(self, _unit: int, timeout_ms: int, _data: bytes) -> Answer:
        self.watchdog.start(timeout_ms)
        return 0, b""

    def _program(self, _unit: int, address: int, data: bytes) -> Answer | None:
        try:
            self.flash.program(address, data)
        except PowerCutError:
            self._end(OFF, 0)
            return None
        return 0, b""

    def _erase(self, _unit: int, block: int, _data: bytes) -> Answer | None:
        try:
            self.flash.erase(block)
        except PowerCutError:
            self._end(OFF, 0)
            return None
        return 0, b""

    def _configure_uart(self, unit: int, baud: int, data: bytes) -> Answer:
        self.uarts[unit].configure(baud, int.from_bytes(data, "little"))
        return 0, b""

    def _lost_on_uart(self, unit: int, count: int, _data: bytes) -> None:
        self.uarts[unit].lost += count
