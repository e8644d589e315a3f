"""One run of the demo: start the city, watch what arrives, cut the power, give the sums."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from simpang.demo.accounts import Accounts, Sums
from simpang.demo.city import HOST, NOTES, PREFIX, SITE, City, Settings, places
from simpang.demo.errors import DemoError
from simpang.demo.screen import View
from simpang_gateway import control
from simpang_gateway.errors import SimpangError

_TICK_S = 0.5
_FIRST_DATA_S = 30.0
_STATUS_S = 5.0
_LAST_STATS_S = 1.5
# Longer than the gateway takes to read, commit (200 ms) and publish what the nodes sent last.
_QUIET_S = 0.6
_SETTLE_TICK_S = 0.1
_SETTLE_S = 15.0
_SETTLE_WHEN_STOPPED_S = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a run.

    `last` is the newest air message of each node, `first_data_s` when the first record had arrived, in
    seconds after the start (None: none came); `stopped` says that the user ended it.
    """

    sums: Sums
    seed: int
    last: dict[int, dict[str, Any]]
    first_data_s: float | None
    stopped: bool

    @property
    def problem(self) -> str | None:
        """What went wrong with the records, None where nothing did."""
        sums = self.sums
        if sums.lost or sums.duplicates:
            return f"{sums.lost} records were lost, {sums.duplicates} came twice with a difference"
        if sums.waiting and not self.stopped:
            return f"{sums.waiting} records were committed and did not arrive in {_SETTLE_S:.0f} s"
        return None

    def document(self) -> dict[str, Any]:
        """The object that --json prints; docs/demo.md explains its keys."""
        return {
            "v": 1,
            **asdict(self.sums),
            "records": self.sums.delivered,
            "seed": self.seed,
            "first_data_s": self.first_data_s,
            "last": {str(node): message for node, message in sorted(self.last.items())},
        }


async def run(settings: Settings, view: View) -> Result:
    """Run the demo until its seconds are over, or SIGINT, SIGTERM or SIGHUP comes.

    Raises DemoError, RigError or SimpangError where it cannot go on; nothing is left behind then either.
    """
    demo = _Demo(settings, view)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, demo.stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
        loop.add_signal_handler(signal.SIGHUP, demo.stop)
    return await demo.run()


class _Demo:
    def __init__(self, settings: Settings, view: View) -> None:
        self._settings = settings
        self._view = view
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._accounts = Accounts(SITE, places(settings))
        self._first_data_s: float | None = None
        self._stats = {node: asyncio.Event() for node in self._accounts.nodes}

    def stop(self) -> None:
        """End the run: the power is cut, and what is on its way arrives. A second call skips that."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self) -> Result:
        async with City(self._settings) as city:
            if await _until(self._stop, city, self._start(city)):
                await _until(self._stop, city, self._watch(city))
                await _until(self._hurry, city, self._settle(city))
            self._view.step("ending nodes, gateway and broker")
        nodes = self._accounts.nodes
        return Result(
            self._accounts.sums(),
            self._settings.seed,
            {node: account.last for node, account in nodes.items() if account.last is not None},
            self._first_data_s,
            self._stop.is_set(),
        )

    # ---- the three parts of a run

    async def _start(self, city: City) -> bool:
        for note in NOTES:
            self._view.note(note)
        self._view.note(f"Listen too: {PREFIX}/{SITE}/# at {HOST}:{city.port}, MQTT 5.")
        self._view.step(f"starting the broker on {HOST}:{city.port}")
        await city.start_broker()
        await city.listen(self._arrived)
        self._view.step("building the firmware")
        await city.build_firmware()
        self._view.step(f"giving power to {self._settings.nodes} virtual nodes")
        await city.start_nodes(self._said)
        self._view.step("starting the gateway")
        await city.start_gateway()
        self._view.step("waiting for the first record")
        return True

    async def _watch(self, city: City) -> None:
        deadline_s = self._loop.time() + _FIRST_DATA_S
        while True:
            await self._ask(city)
            city.check_nodes()
            self._show()
            now_s = self._loop.time()
            pause_s = _TICK_S
            if self._first_data_s is None:
                if now_s > deadline_s:
                    raise DemoError(
                        f"no record has arrived within {_FIRST_DATA_S:.0f} s. "
                        "Next: run the demo on a machine with less to do."
                    )
            elif self._settings.seconds is not None:
                left_s = self._begun_s + self._first_data_s + self._settings.seconds - now_s
                if left_s <= 0:
                    return
                pause_s = min(_TICK_S, left_s)
            await asyncio.sleep(pause_s)

    async def _settle(self, city: City) -> None:
        self._view.step("cutting the power of the nodes; what is on its way arrives")
        await asyncio.gather(*(self._cut_power(city, node) for node in city.nodes))
        deadline_s = self._loop.time() + (_SETTLE_WHEN_STOPPED_S if self._stop.is_set() else _SETTLE_S)
        before, quiet_since_s = None, 0.0
        while (now_s := self._loop.time()) < deadline_s:
            await self._ask(city)
            sums = self._accounts.sums()
            if sums != before:
                before, quiet_since_s = sums, now_s
            elif not sums.waiting and now_s - quiet_since_s >= _QUIET_S:
                break
            await asyncio.sleep(_SETTLE_TICK_S)
        self._show()

    async def _cut_power(self, city: City, node: int) -> None:
        if not self._stop.is_set():
            # A node tells its accounts once a second at most: the cut comes right after it did.
            self._stats[node].clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_STATS_S):
                    await self._stats[node].wait()
        await city.nodes[node].cut_power()

    # ---- what comes in, what is shown

    def _said(self, node: int, event: dict[str, Any]) -> None:
        self._accounts.said(node, event)
        if event["code"] == "node.stats":
            self._stats[node].set()

    def _arrived(self, topic: str, payload: bytes) -> None:
        node = self._accounts.arrived(topic, payload)
        if node is None:
            return
        if self._first_data_s is None:
            self._first_data_s = round(self._loop.time() - self._begun_s, 2)
        self._view.arrived(self._accounts.nodes[node])

    async def _ask(self, city: City) -> None:
        # A gateway that is gone is reported by whoever watches its process.
        with contextlib.suppress(SimpangError):
            self._accounts.asked(
                await asyncio.to_thread(control.request, city.control_socket, "status", timeout_s=_STATUS_S)
            )

    def _show(self) -> None:
        if self._first_data_s is not None:
            self._view.show(self._accounts, self._loop.time() - self._begun_s)


async def _until(event: asyncio.Event, city: City, work: Coroutine[Any, Any, T]) -> T | None:
    """Do `work`; return its result, or None where `event` was set first. Raises what a part of the city fails
    by, else what `work` raises.
    """
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting, city.failed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait({working, waiting})
    if not working.cancelled():
        working.exception()  # looked at, whether it counts or not
    if event.is_set():
        # What fails while it is being ended is no failure.
        return None
    if city.failed.done():
        city.failed.result()
    return working.result()
