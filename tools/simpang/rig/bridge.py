"""A bridge without hardware: its real firmware on a real MicroPython VM, between the air and a pty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simpang.rig import provision
from simpang.rig.air import AirWaves
from simpang.rig.capture import Capture
from simpang.rig.node import VirtualNode


class VirtualBridge(VirtualNode):
    """One virtual bridge; `url` is what the gateway opens. Its line is UART 0, the USB connector, which is
    the console too. `config` becomes /config.json.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        air: AirWaves,
        *,
        config: Mapping[str, Any] | None = None,
        capture: Capture | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(name, folder, config=config, air=air, link=0, capture=capture, cache=cache)

    def _provision(self) -> None:
        self._firmware = provision.build_bridge(blocks=self._blocks, cache=self._cache)
        super()._provision()
