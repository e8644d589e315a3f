"""One scenario of `prove network`: faults one after the other, then a net that is well, then the account."""

from __future__ import annotations

import asyncio
import contextlib
import random
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from simpang.prove.network_inside import Attempts, Names
from simpang.prove.network_plan import OWN_CERTIFICATES, SERVER_CERTIFICATES, Plan, Spell
from simpang.prove.network_site import Site
from simpang.rig.errors import RigError
from simpang.rig.mqttwire import connect
from simpang_gateway.errors import SimpangError
from simpang_protocol.schema import HEALTH

DETECT_S = 15.0
"""A dead link is found in at most this time."""

CONNECTS_A_MINUTE = 10
"""At most so many connection attempts in any minute."""

_DEAD_FOR_S = 22.0  # longer than any dead link may stay unnoticed
_SETTLE_S = 45.0  # for a delivery between two faults, before the next one comes all the same
_RECOVER_S = 150.0  # for everything to arrive once the net is well: no progress till then is a hang
_CONFIRM_S = 120.0  # more, where what a broker forgot is sent again a minute or three later
_GRACE_S = 4.0  # for what the uplink has ticked off to come to the consumer
_FEED_EVERY_S = 0.2
_NOTED_LATE_S = 0.01  # the gateway counts whole milliseconds
_SEEN_LATE_S = 0.5  # an attempt of another process is seen when it is taken, sooner or later
_QUIET_FIRST_S = 1.0
_TRACE_LINES = 4
_CLOCKS_MS = (-25 * 365 * 86_400_000, 40 * 365 * 86_400_000)  # years back and forth


@dataclass(slots=True)
class Outcome:
    """What became of one scenario.

    `overtaken` are records that came after later ones of their stream because a broker had dropped them after
    its acknowledgement; `out_of_order` are those that came so without such a broker.
    """

    number: int
    names: tuple[str, ...]
    transport: str
    process: bool
    created: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    repeated: int = 0
    out_of_order: int = 0
    overtaken: int = 0
    found: list[tuple[str, float]] = field(default_factory=list)
    kept_dead: list[tuple[str, float]] = field(default_factory=list)
    connects: int = 0
    connects_a_minute: int = 0
    hung: bool = False
    seconds: float = 0.0
    recover_s: float = 0.0
    error: str | None = None

    @property
    def wrong(self) -> list[str]:
        """What was promised and did not hold."""
        found = [
            f"{count} {what}"
            for count, what in (
                (self.lost, "lost"),
                (self.duplicates, "under two identities"),
                (self.corrupt, "corrupt"),
                (self.out_of_order, "out of order"),
                (self.created - self.acknowledged, "not acknowledged to the nodes"),
            )
            if count
        ]
        late = [(kind, seconds) for kind, seconds in self.found + self.kept_dead if seconds > DETECT_S]
        found += [f"dead link ({kind}) kept for {seconds:.1f} s" for kind, seconds in late]
        if self.connects_a_minute > CONNECTS_A_MINUTE:
            found.append(f"{self.connects_a_minute} connection attempts in a minute")
        if self.hung:
            found.append("no progress for minutes on a net that was well")
        if self.error is not None:
            found.append(self.error)
        return found


async def run_plan(
    plan: Plan,
    folder: Path,
    mosquitto: Sequence[str],
    names: Names,
    attempts: Attempts,
    uplink: Mapping[str, object] | None = None,
) -> Outcome:
    """Do what the plan says, in a folder of its own; `uplink` are further settings of the uplink."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    outcome = Outcome(plan.number, tuple(s.name for s in plan.spells), plan.transport, plan.process)
    site = Site(plan, folder, mosquitto, names, uplink)
    try:
        await site.start()
        story = _Story(site, random.Random(plan.seed))
        async with story.feeding():
            for spell in plan.spells:
                await story.endure(spell)
        well_s = loop.time()
        outcome.hung = not await story.recover()
        outcome.recover_s = loop.time() - well_s
        _account(site, outcome)
        if site.inside is not None:
            tries = attempts.of(site.client_id)
            outcome.connects_a_minute = most_in(tries, 60.0 - _NOTED_LATE_S)
        else:
            tries = site.proxy.connected_at
            outcome.connects_a_minute = most_in(tries, 60.0 - _SEEN_LATE_S)
        outcome.connects = len(tries)
        await site.stop()
    except (RigError, SimpangError, OSError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
    except Exception as error:  # a mistake in the gateway is found like any other broken promise
        outcome.error = " ".join(traceback.format_exception(error)[-_TRACE_LINES:]).replace("\n", " ")
    finally:
        await site.end()
    outcome.seconds = loop.time() - started_s
    return outcome


def most_in(times: Sequence[float], span_s: float) -> int:
    """The most of ascending `times` that lie within any `span_s`."""
    most = first = 0
    for at, time in enumerate(times):
        while time - times[first] >= span_s:
            first += 1
        most = max(most, at - first + 1)
    return most


class _Story:
    """The faults of one scenario, and the records that are made meanwhile."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self._site = site
        self._rng = rng
        self._quiet = False
        self._loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def feeding(self) -> AsyncIterator[None]:
        """The nodes make records meanwhile."""
        for line in self._site.lines:
            line.create(self._site.plan.backlog // len(self._site.lines))
        task = asyncio.create_task(self._feed())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _feed(self) -> None:
        due = 0.0
        while True:
            await asyncio.sleep(_FEED_EVERY_S)
            due += 0.0 if self._quiet else self._site.plan.per_s * _FEED_EVERY_S
            while due >= 1.0:
                self._rng.choice(self._site.lines).create()
                due -= 1.0

    # ---- one fault

    async def endure(self, spell: Spell) -> None:
        """The fault, for as long as it lasts."""
        if spell.settled:
            await self._delivery()
        self._quiet = spell.quiet
        if spell.quiet:
            await asyncio.sleep(_QUIET_FIRST_S)
        try:
            await self._suffer(spell)
        finally:
            self._quiet = False
            self._site.proxy.fault = None

    async def _delivery(self) -> None:
        """Wait until another record has come to the consumer."""
        before = self._site.consumer.count()
        with contextlib.suppress(TimeoutError):
            await self._site.changes.wait_for(lambda: self._site.consumer.count() > before, _SETTLE_S)

    async def _suffer(self, spell: Spell) -> None:
        site, proxy = self._site, self._site.proxy
        name = spell.name
        if spell.fault is not None:
            proxy.fault = spell.fault
            if spell.dead:
                await self._until_found(spell)
            else:
                await asyncio.sleep(spell.seconds)
        elif name == "broker_restart":
            await self._restart(spell, hard=False)
        elif name in ("broker_killed", "broker_forgets"):
            await self._restart(spell, hard=self._rng.random() < 0.5 or name == "broker_killed")
        elif name == "taken_over":
            await self._take_over(spell)
        elif name in SERVER_CERTIFICATES:
            await self._bad_server(spell)
        elif name in OWN_CERTIFICATES:
            site.certificates.show(name)
            await self._reconnecting(spell)
            site.certificates.show()
        elif name in ("dns", "dns_hangs"):
            site.names.set(site.host, "missing" if name == "dns" else "hangs")
            await self._reconnecting(spell)
            site.names.set(site.host, "here")
        elif name == "wrong_clock":
            await self._wrong_clock(spell)
        else:
            raise ValueError(f"nobody knows the fault {name}")

    async def _until_found(self, spell: Spell) -> None:
        """Until the gateway has left every connection that was dead, or should have done so long since."""
        proxy = self._site.proxy
        before = len(proxy.found_dead)
        with contextlib.suppress(TimeoutError):
            await self._site.changes.wait_for(
                lambda: len(proxy.found_dead) > before and not proxy.open, _DEAD_FOR_S
            )

    async def _reconnecting(self, spell: Spell) -> None:
        """The gateway has to connect anew, and cannot for a while."""
        self._site.proxy.drop()
        await asyncio.sleep(spell.seconds)

    async def _restart(self, spell: Spell, *, hard: bool) -> None:
        broker = self._site.broker
        await asyncio.to_thread(broker.kill if hard else broker.stop)
        await asyncio.sleep(self._rng.uniform(0.0, spell.seconds))
        await asyncio.to_thread(broker.start)

    async def _take_over(self, spell: Spell) -> None:
        """Another client, such as a gateway cloned from one card, comes with our client id and stays."""
        for _ in range(spell.count):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._site.plain_port)
                writer.write(connect(self._site.client_id))
                await asyncio.sleep(spell.seconds / 2)
                writer.transport.abort()
            await asyncio.sleep(spell.seconds / 2)

    async def _bad_server(self, spell: Spell) -> None:
        site = self._site
        for bad in (True, False):
            shown = site.certificates.bad_server(spell.name) if bad else site.certificates.server
            if site.proxy.tls is not None:
                site.proxy.tls = site.certificates.context(shown)
            else:
                site.broker.tls = site.certificates.broker_tls(shown)
                await asyncio.to_thread(site.broker.restart)
            if bad:
                await self._reconnecting(spell)

    async def _wrong_clock(self, spell: Spell) -> None:
        site = self._site
        assert site.inside is not None
        site.inside.clock.shift_ms = self._rng.choice(_CLOCKS_MS)
        if site.plan.transport == "plain":
            await self._reconnecting(spell)
        else:
            # What TLS sees of a clock that is behind: it cannot be shifted for TLS itself.
            await self._bad_server(Spell("server_cert_not_yet", seconds=spell.seconds))
        site.inside.clock.shift_ms = 0

    # ---- the end

    async def recover(self) -> bool:
        """The net is well: wait for everything. False if it does not come, and nothing says that it has."""
        site = self._site
        try:
            async with asyncio.timeout(_RECOVER_S + (_CONFIRM_S if site.plan.consumer_confirms else 0.0)):
                for line in site.lines:
                    await line.wait_until_empty(_RECOVER_S)
                while not self._all_came():
                    with contextlib.suppress(TimeoutError):
                        await site.changes.wait_for(self._all_came, 1.0)
                    if not self._all_came() and await self._ticked_off():
                        with contextlib.suppress(TimeoutError):
                            await site.changes.wait_for(self._all_came, _GRACE_S)
                        return True
        except (TimeoutError, RigError):
            return False
        return True

    def _all_came(self) -> bool:
        return self._site.consumer.count() >= self._site.created()

    async def _ticked_off(self) -> bool:
        """Whether the gateway believes that all is delivered."""
        uplink = await self._site.uplink()
        return uplink.get("backlog") == 0 and uplink.get("cursor", 0) >= self._site.created()


def _account(site: Site, outcome: Outcome) -> None:
    """Compare what the nodes made with what the consumer kept: each record carries its number."""
    received = site.consumer.snapshot()
    outcome.created = site.created()
    outcome.acknowledged = outcome.created - site.held()
    outcome.repeated = received.repeated
    if site.plan.ordered:
        outcome.out_of_order = len(received.out_of_order)
    else:
        outcome.overtaken = len(received.out_of_order)
    outcome.corrupt = len(received.conflicts)
    values: dict[int, Counter[int]] = {line.node.number: Counter() for line in site.lines}
    for (node, _, _), record in received.records.items():
        values[node][record["samples"][0][HEALTH.fields[0].name]] += 1
    missing = 0
    for line in site.lines:
        came = values[line.node.number]
        made = range(line.node.journal.created)
        missing += sum(1 for value in made if value not in came)
        outcome.duplicates += sum(count - 1 for count in came.values())
        outcome.corrupt += sum(1 for value in came if value not in made)
    # What a node still holds is late, not lost.
    outcome.lost = max(0, missing - site.held())
    outcome.found = list(site.proxy.found_dead)
    outcome.kept_dead = list(site.proxy.not_found_dead)
