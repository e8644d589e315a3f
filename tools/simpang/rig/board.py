"""What stands around the processor of a virtual board: NVS, RTC memory, pins, analog inputs, I2C buses.

The firmware's `machine` and `esp32` (rig/fakes) ask for these by one-letter requests; the table is
`Board.requests`.
"""

from __future__ import annotations

import errno
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from simpang.rig.errors import RigError

Answer = tuple[int, bytes]
Request = Callable[[int, int, bytes], Answer | None]

_INPUT_ONLY_PINS = range(34, 40)
_FLASH_PINS = range(6, 12)
_PULL_UP = 2
_RISING, _FALLING = 1, 2
_OUTPUT_CHANGES_KEPT = 1000
_OUTPUT_MODES = (3, 7)
_NVS_NOT_FOUND = 1


class Environment(Protocol):
    """The air around a node, in physical units; models read more of it (rig/world.py)."""

    @property
    def temperature(self) -> float:
        """Degrees Celsius."""


class I2cModel(Protocol):
    """A device on an I2C bus (rig/models)."""

    ADDRESS: int

    def write(self, data: bytes, now_ms: int) -> None:
        """Take the bytes of a write transaction."""

    def read(self, n: int, now_ms: int) -> bytes:
        """Give `n` bytes for a read transaction."""


class AnalogModel(Protocol):
    """What stands at an analog input (rig/models)."""

    def read_uv(self, now_ms: int) -> int:
        """Give the voltage at the pin in microvolts."""


class Nvs:
    """Non-volatile storage in a JSON file. A change is seen at once and is durable at commit()."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._durable: dict[str, bytes] = {}
        if path.exists():
            self._durable = {key: bytes.fromhex(value) for key, value in json.loads(path.read_text()).items()}
        self._live = dict(self._durable)

    @property
    def durable(self) -> Mapping[str, bytes]:
        """What a power cut leaves: "namespace/key" -> 4 bytes of an i32, "namespace/key#" -> a blob."""
        return dict(self._durable)

    def power_lost(self) -> None:
        """Forget what was not committed."""
        self._live = dict(self._durable)

    def erase(self) -> None:
        """Erase everything, as `esptool erase_region` on the NVS partition does."""
        self._live = {}
        self._commit()

    def _commit(self) -> None:
        self._durable = dict(self._live)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({key: value.hex() for key, value in self._durable.items()}))
        fresh.replace(self._path)

    def request(self, action: int, _arg: int, data: bytes) -> Answer:
        """Serve 'V': actions 0 get, 2 get blob, 1 set, 3 set blob, 4 erase, 5 commit; data = namespace, key,
        value.
        """
        space, key, value = data.split(b"\0", 2)
        # A type of its own for blobs: on the board, asking for a blob under an integer's key finds nothing.
        name = f"{space.decode()}/{key.decode()}"
        kind = "#" if action in (2, 3) else ""
        if action in (0, 2):
            found = self._live.get(name + kind)
            return (_NVS_NOT_FOUND, b"") if found is None else (0, found)
        if action in (1, 3):
            self._drop(name)
            self._live[name + kind] = value
            return 0, b""
        if action == 4:
            return (0 if self._drop(name) else _NVS_NOT_FOUND), b""
        self._commit()
        return 0, b""

    def _drop(self, name: str) -> bool:
        found = [self._live.pop(name + kind, None) for kind in ("", "#")]
        return any(value is not None for value in found)


class Board:
    """Everything of a virtual board that is neither processor, flash nor UART.

    `levels[pin]` are the logic levels (what the board drives, or what set_input() put there), `driven[pin]`
    the newest changes of what the board drives, each (ms, level). `analog_uv[pin]` are the voltages of analog
    inputs in microvolts; a model in `analog` gives that of its pin by itself. `rtc` is the RTC memory, at
    most 2048 bytes, gone at a power cut. `on_edge(pin, level)` is called for each edge that the firmware
    wants to hear of.
    """

    def __init__(
        self,
        nvs_path: Path,
        buses: Mapping[int, Sequence[I2cModel]],
        environment: Environment | None,
        now_ms: Callable[[], int],
        analog: Mapping[int, AnalogModel] | None = None,
        on_edge: Callable[[int, int], object] = lambda pin, level: None,
    ) -> None:
        self.nvs = Nvs(nvs_path)
        self.rtc = b""
        self.levels: dict[int, int] = {}
        self.analog_uv: dict[int, int] = {}
        self.driven: dict[int, deque[tuple[int, int]]] = {}
        self.i2c_transfers = 0
        self._analog = analog or {}
        self._on_edge = on_edge
        self._triggers: dict[int, int] = {}
        self._inputs: dict[int, int] = {}
        self._pulls: dict[int, int] = {}
        self._buses = buses
        self._environment = environment
        self._now_ms = now_ms
        self.requests: dict[bytes, Request] = {
            b"V": self.nvs.request,
            b"R": lambda unit, arg, data: (0, self.rtc),
            b"r": self._write_rtc,
            b"M": self._pin_mode,
            b"G": lambda pin, arg, data: (self._level(pin), b""),
            b"S": self._set_pin,
            b"Q": self._set_trigger,
            b"A": self._read_analog,
            b"T": self._i2c,
            b"t": self._chip_temperature,
        }

    def power_lost(self) -> None:
        """A power cut: RTC memory, uncommitted NVS and pin levels are gone."""
        self.rtc = b""
        self.restarted()

    def restarted(self) -> None:
        """Any reset: pins are inputs again, what NVS held uncommitted is gone."""
        self.nvs.power_lost()
        self._pulls.clear()
        self._triggers.clear()
        self.levels = dict(self._inputs)

    def set_input(self, pin: int, level: int | None) -> None:
        """Drive an input of the board from outside: 0, 1, or None for open (a pull-up makes that 1)."""
        before = self._level(pin)
        if level is None:
            self._inputs.pop(pin, None)
            self.levels.pop(pin, None)
        else:
            self._inputs[pin] = self.levels[pin] = int(bool(level))
        now = self._level(pin)
        if now != before and self._triggers.get(pin, 0) & (_RISING if now else _FALLING):
            self._on_edge(pin, now)

    def _level(self, pin: int) -> int:
        return self.levels.get(pin, int(self._pulls.get(pin) == _PULL_UP))

    def _set_pin(self, pin: int, level: int, _data: bytes) -> None:
        if pin not in self._inputs:
            changes = self.driven.setdefault(pin, deque(maxlen=_OUTPUT_CHANGES_KEPT))
            if not changes or changes[-1][1] != level:
                changes.append((self._now_ms(), level))
            self.levels[pin] = level

    def _set_trigger(self, pin: int, trigger: int, _data: bytes) -> Answer:
        self._triggers[pin] = trigger
        return 0, b""

    def _read_analog(self, pin: int, _arg: int, _data: bytes) -> Answer:
        model = self._analog.get(pin)
        return (self.analog_uv.get(pin, 0) if model is None else model.read_uv(self._now_ms())), b""

    def _pin_mode(self, pin: int, arg: int, _data: bytes) -> Answer:
        mode, pull = arg & 255, arg >> 8
        bad = pin > 39 or pin in _FLASH_PINS or (pin in _INPUT_ONLY_PINS and mode in _OUTPUT_MODES)
        if pull != 255:
            self._pulls[pin] = pull
        return int(bad), b""

    def _write_rtc(self, _unit: int, _arg: int, data: bytes) -> Answer:
        self.rtc = data
        return 0, b""

    def _i2c(self, bus: int, arg: int, data: bytes) -> Answer:
        address, count = arg & 127, arg >> 8
        self.i2c_transfers += 1
        for model in self._buses.get(bus, ()):
            if address == model.ADDRESS and not getattr(model, "silent", False):
                break
        else:
            return -errno.ENODEV, b""
        now_ms = self._now_ms()
        try:
            if data:
                model.write(data, now_ms)
            answer = model.read(count, now_ms) if count else b""
        except OSError as error:
            return -(error.errno or errno.EIO), b""
        if len(answer) != count:
            raise RigError(f"the model at I2C address {address:#x} gave {len(answer)} bytes of {count}.")
        return 0, answer

    def _chip_temperature(self, _unit: int, _arg: int, _data: bytes) -> Answer:
        # The die of an ESP32 at work is some 15 degrees above the air; its sensor answers in Fahrenheit.
        celsius = (25.0 if self._environment is None else self._environment.temperature) + 15
        return round(celsius * 9 / 5 + 32), b""
