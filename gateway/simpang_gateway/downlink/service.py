"""Joins the desk with the uplinks, the nodes and the file; docs/downlink.md describes what it promises.

What is accepted is on the disk before anything else happens; then its state is told, then it is carried out.
"""

import asyncio
import contextlib
import json
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..alarms import Alarms
from ..clock import Clock
from ..control import Handler
from ..errors import SimpangError
from ..events import EventStream
from ..faults import Faults
from ..files import describe
from ..hub import Hub
from ..keystore import KeyStore
from ..mailbox import parse_command
from ..requests import number
from . import memory
from .catalogue import CATALOGUE
from .desk import Desk
from .envelope import LAST_NODE, MAX_ENVELOPE, Refused
from .quiet import Quiet
from .rules import Rules
from .tickets import REFUSED, Now, Ticket

INBOX = 64
"""Messages that wait to be judged; what finds no room is counted as `command.flood`."""
LOCAL_VALID_S = 86_400
"""How long a command from the control socket may wait for its node, where the clock is known."""
COMMAND_WAIT_S = 3600
"""The longest that an answer on the control socket waits for a command's end."""
STATE_KEPT_S = 3600
"""How long the broker keeps a state after its command has expired."""
FLUSH_S = 2.0
"""Longest time until a state that costs nothing if it is lost is in the file."""
_RETRY_S = 10.0

_BY_OP = {entry.op: name for name, entry in CATALOGUE.items() if entry.op is not None}

Action = Callable[[Ticket], Awaitable[dict[str, Any]]]
"""Carries out a command of the gateway's own; raises SimpangError where it fails."""


class Uplinks(Protocol):
    """What is asked of the uplinks."""

    def listen(self, heard: Callable[[str, bytes], None]) -> None:
        """Have `heard(uplink, payload)` called for every message on a command topic."""

    def tell(self, name: str, id: str, payload: bytes, *, retain: bool, expiry_s: int) -> None:
        """Publish the state of a command."""


class Downlink:
    """Commands from the city and from the control socket, on their way to nodes and to the gateway itself."""

    def __init__(
        self,
        rules: Rules,
        state: Path,
        keys: KeyStore,
        hub: Hub,
        clock: Clock,
        events: EventStream,
        alarms: Alarms,
        uplinks: Uplinks,
        faults: Faults,
        actions: Mapping[str, Action],
    ) -> None:
        """Read what an earlier process left in the folder `state`."""
        self._keys = keys
        self._hub = hub
        self._clock = clock
        self._events = events
        self._alarms = alarms
        self._uplinks = uplinks
        self._faults = faults
        self._actions = actions
        self._path = state / memory.NAME
        book, why = memory.read(self._path)
        if why is not None:
            events.emit("command.memory_lost", path=self._path, error=why)
        self._desk = Desk(rules, book, self._check_node)
        self._desk.dirty = book.lost and book.since is None
        self._quiet = Quiet(events.emit)
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._wake = asyncio.Event()
        # What is judged must be on the disk before the next is.
        self._turn = asyncio.Lock()
        self._listening = self._begun = False
        self._written_ms = 0
        self._error: str | None = None
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._own: set[asyncio.Task[None]] = set()

    # ---- what others call

    async def run(self) -> None:
        """Work until cancelled; then `close` ends what is left."""
        while True:
            if self._desk.rules.keys and not self._listening:
                self._listening = True
                self._uplinks.listen(self._heard)
            await self._step()
            with contextlib.suppress(TimeoutError):  # something expires, or is to be written
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
            self._wake.clear()

    async def close(self) -> None:
        """End what the gateway itself was carrying out, and write what is not in the file yet."""
        for task in tuple(self._own):
            task.cancel()
        await asyncio.gather(*self._own, return_exceptions=True)
        async with self._turn:
            if self._begun and self._desk.dirty:
                await self._save()

    def use(self, rules: Rules) -> None:
        """Go by other rules from now on; what was sent is waited for, what they do not allow is not."""
        for ticket in self._desk.use(rules, self._now()):
            self._changed(ticket)
        self._wake.set()

    def clock_known(self) -> None:
        """The clock is believed from now on: what waited for that can be judged."""
        self._wake.set()

    def sent(self, node: int, number: int) -> None:
        """A command went out to its node."""
        ticket = self._desk.sent(node, number, self._now())
        if ticket is not None:
            self._changed(ticket)

    def result(self, node: int, number: int, outcome: int, text: str) -> None:
        """A node's answer is in the store."""
        ticket = self._desk.result(node, number, outcome, text, self._now())
        if ticket is not None:
            self._changed(ticket)

    def finding(self, node: int, number: int, found: int, text: str) -> None:
        """A part of a node's self-test is in the store."""
        self._desk.finding(node, number, found, text)

    def status(self) -> dict[str, object]:
        """Return what `simpang gateway status` shows of it."""
        return self._desk.status()

    def handlers(self) -> Mapping[str, Handler]:
        """The operations of the control socket by name."""
        return {"node.command": self._answer_node_command, "commands": self._answer_commands}

    # ---- coming in

    def _heard(self, uplink: str, payload: bytes) -> None:
        """Called by paho: must neither wait nor raise. An empty message only clears a retained one."""
        if not payload:
            return
        if len(self._inbox) < INBOX:
            self._inbox.append((uplink, payload[: MAX_ENVELOPE + 1]))
            self._wake.set()
        else:
            self._desk.counters["command.flood"] += 1

    async def _step(self) -> None:
        """Do everything that can be done now."""
        async with self._turn:
            now = self._tidy()
            fresh = []
            while self._inbox:
                uplink, payload = self._inbox.popleft()
                taken = self._desk.take(payload, uplink, now)
                if taken.refusal is not None:
                    refusal = taken.refusal
                    self._quiet.note(refusal.code, now.boot_ms, **{**refusal.arguments, "id": refusal.id})
                if taken.accepted and taken.ticket is not None:
                    fresh.append(taken.ticket)
                elif taken.tell and taken.ticket is not None:
                    self._publish(taken.ticket)
            await self._settle(fresh)

    def _tidy(self) -> Now:
        now = self._now()
        if not self._begun:
            self._begun = True
            self._tell_again(now)
            ended = self._desk.begin(now)
        else:
            ended = self._desk.tidy(now)
        for ticket in ended:
            self._changed(ticket)
        return now

    def _tell_again(self, now: Now) -> None:
        """What the process before this one told last may not have reached the broker."""
        for ticket in self._desk.book.tickets.values():
            if now.unix_s is None or (ticket.expires or 0) + STATE_KEPT_S > now.unix_s:
                self._publish(ticket)

    async def _settle(self, fresh: list[Ticket]) -> None:
        """Make durable what was accepted, tell it, and begin with what is next."""
        fresh = [ticket for ticket in fresh if await self._number(ticket)]
        if fresh or (self._desk.dirty and self._flush_in_s() <= 0):
            saved = await self._save()
            for ticket in fresh:
                if not saved:
                    self._drop(ticket, Refused("command.unsaved", path=self._path, error=self._error))
                    continue
                self._events.emit("command.accepted", **_about(ticket))
                self._changed(ticket)
        following = list(self._desk.ready(self._now()))
        if following and self._desk.dirty:
            # A node ignores numbers below the one that it had last: once it has the next, a restart must not
            # wait for the answer to this one any more.
            await self._save()
        for ticket in following:
            # Its time, or its turn, may be over by now.
            if ticket.pending:
                self._begin(ticket)

    async def _number(self, ticket: Ticket) -> bool:
        """Give a node's command its number, in the order of coming: a node ignores lower ones."""
        if CATALOGUE[ticket.command].op is None or ticket.node is None:
            return True
        try:
            ticket.number = await asyncio.to_thread(self._keys.next_command, ticket.node)
        except SimpangError as error:
            self._drop(ticket, Refused(error.code, **error.arguments))
            return False
        return True

    def _drop(self, ticket: Ticket, refusal: Refused) -> None:
        now = self._now()
        self._desk.drop(ticket, refusal, now)
        self._quiet.note(refusal.code, now.boot_ms, **{**refusal.arguments, "id": refusal.id})
        self._publish(ticket)

    # ---- carrying out

    def _begin(self, ticket: Ticket) -> None:
        op = CATALOGUE[ticket.command].op
        if op is None:
            task = asyncio.get_running_loop().create_task(self._carry_out(ticket))
            self._own.add(self._faults.watch(task))
            task.add_done_callback(self._own.discard)
            return
        assert ticket.node is not None and ticket.number is not None  # nothing else was ever written
        try:
            code, data = parse_command(ticket.node, op, ticket.data)
            self._hub.command(ticket.node, code, data, ticket.number)
        except SimpangError as error:
            self._desk.failed(ticket, error.code, error.cause("en"), self._now())
            self._changed(ticket)

    async def _carry_out(self, ticket: Ticket) -> None:
        """A command of the gateway's own: begun at most once, so that is on the disk first."""
        async with self._turn:
            self._desk.begun(ticket, self._now())
            saved = await self._save()
        try:
            if not saved:
                raise SimpangError("command.unsaved", path=self._path, error=self._error)
            self._changed(ticket)
            result = await self._actions[ticket.command](ticket)
        except SimpangError as error:
            self._desk.failed(ticket, error.code, error.cause("en"), self._now())
        else:
            self._desk.done(ticket, result, self._now())
        self._changed(ticket)

    def _check_node(self, node: int) -> None:
        if node not in self._keys.nodes():
            raise Refused("node.unknown", node=node)
        if self._keys.is_revoked(node):
            raise Refused("node.revoked", node=node)

    # ---- telling

    def _changed(self, ticket: Ticket) -> None:
        """A state is new: tell it, and let the next one have its turn."""
        if not ticket.pending:
            self._events.emit("command.ended", **_about(ticket), state=ticket.state)
            if ticket.node is not None and ticket.number is not None:
                self._hub.withdraw(ticket.node, ticket.number)
            waiting = self._waiting.pop(ticket.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        self._publish(ticket)
        self._wake.set()

    def _publish(self, ticket: Ticket) -> None:
        if ticket.local:
            return
        rules = self._desk.rules
        document = {"v": 1, "site": rules.site, "gateway": rules.gateway, **ticket.to_state()}
        # A broker would keep for ever what anybody can bring about; what is remembered is bounded.
        retain = ticket.id in self._desk.book.tickets
        unix_s = self._now().unix_s
        left_s = rules.max_span_s if unix_s is None else max(0, (ticket.expires or 0) - unix_s)
        self._uplinks.tell(
            ticket.uplink,
            ticket.id,
            json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(),
            retain=retain,
            expiry_s=(left_s if retain else 0) + STATE_KEPT_S,
        )

    # ---- the file

    async def _save(self) -> bool:
        self._desk.dirty = False
        self._written_ms = self._clock.monotonic_ms()
        try:
            await asyncio.to_thread(memory.write, self._path, self._desk.book.dump())
        except OSError as error:
            self._desk.dirty = True
            self._error = describe(error)
            self._alarms.raise_("command.unsaved", path=self._path, error=self._error)
            return False
        self._error = None
        self._alarms.clear("command.unsaved")
        return True

    def _flush_in_s(self) -> float:
        """Seconds until a change that nobody waits for is to be written, or tried again."""
        since_s = (self._clock.monotonic_ms() - self._written_ms) / 1000
        return (FLUSH_S if self._error is None else _RETRY_S) - since_s

    def _pause_s(self) -> float | None:
        pauses = []
        end_ms = self._desk.next_end_ms()
        if end_ms is not None:
            pauses.append(max(0.0, (end_ms - self._clock.boot_ms()) / 1000))
        if self._desk.dirty:
            pauses.append(max(0.0, self._flush_in_s()))
        return min(pauses, default=None)

    def _now(self) -> Now:
        return Now.read(self._clock)

    # ---- control socket

    async def _answer_commands(self, _request: dict[str, Any]) -> dict[str, Any]:
        tickets = reversed(self._desk.book.tickets.values())
        return {"commands": [{**ticket.to_state(), "data": ticket.data} for ticket in tickets]}

    async def _answer_node_command(self, request: dict[str, Any]) -> dict[str, Any]:
        node = number(request, "node", 1, LAST_NODE)
        name, seconds = request.get("command"), request.get("wait_s", 0)
        if node is None:
            raise SimpangError("control.request", error="node is missing", example='"node": 1')
        if not isinstance(name, str):
            raise SimpangError("control.request", error="command is missing", example='"command": "health"')
        if not isinstance(seconds, int | float) or not 0 <= seconds <= COMMAND_WAIT_S:
            example = f'"wait_s": 0..{COMMAND_WAIT_S}'
            raise SimpangError("control.request", error="wait_s", example=example)
        parse_command(node, name, request.get("data"))
        ticket = await self._take_local(_BY_OP[name], node, request.get("data"))
        if ticket.pending and seconds:
            ended = self._waiting[ticket.id] = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait([ended], timeout=seconds)
            finally:
                self._waiting.pop(ticket.id, None)
        found: dict[str, object] = {
            "id": ticket.number,
            "op": name,
            "state": ticket.state,
            "outcome": ticket.outcome,
            "text": ticket.text,
        }
        if ticket.result is not None:
            found["result"] = ticket.result
        return {"node": node, "command": found}

    async def _take_local(self, command: str, node: int, data: object) -> Ticket:
        # An id that no signed command can have.
        id = f"local:{secrets.token_hex(8)}"
        try:
            self._check_node(node)
            async with self._turn:
                now = self._tidy()
                ticket, replaced = self._desk.take_local(id, command, node, data, now, LOCAL_VALID_S)
                for other in replaced:
                    self._changed(other)
                await self._settle([ticket])
        except Refused as refusal:
            raise SimpangError(refusal.code, **{**refusal.arguments, "id": id}) from refusal
        if ticket.state == REFUSED and ticket.code is not None:
            raise SimpangError(ticket.code, path=self._path, error=self._error, node=node)
        return ticket


def _about(ticket: Ticket) -> dict[str, object]:
    node = "-" if ticket.node is None else ticket.node
    return {"id": ticket.id, "command": ticket.command, "node": node, "key": ticket.key or "-"}
