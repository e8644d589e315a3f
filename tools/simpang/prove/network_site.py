"""The place of one scenario: nodes at ptys, the gateway, the proxy, a real broker, and a consumer there."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simpang.prove.network_inside import InsideGateway, Names
from simpang.prove.network_plan import Plan
from simpang.rig.authority import EXPIRED, NOT_YET, Authority, Identity
from simpang.rig.broker import Broker, BrokerTls
from simpang.rig.changes import Changes
from simpang.rig.consumer import Consumer
from simpang.rig.gateway import BrokerAddress, GatewayProcess
from simpang.rig.proxy import Proxy, hold_port
from simpang.rig.softnode import SoftLine, SoftNode
from simpang_gateway.errors import SimpangError

SITE = "semarang-1"
NODES = 2
_PREFIX_KEPT = f"{SITE}/gateway/kept/city"
# Short enough for a scenario of a minute; the limit on connections a minute is the default.
_STORE: dict[str, object] = {"commit_ms": 50}
_BACKOFF_MAX_S = 8
_QUEUED = ("max_inflight_messages 0", "max_queued_messages 0")


class Certificates:
    """What both ends show each other, good and bad; the gateway's files stay in their place."""

    def __init__(self, folder: Path, host: str) -> None:
        self._authority = Authority(folder / "ours")
        self._stranger = Authority(folder / "strangers")
        self._names = ("127.0.0.1", "localhost", host)
        self.ca_file = self._authority.ca_file
        self.server = self._authority.server(self._names)
        self._own = self._authority.client("gateway")
        self.cert_file = folder / "gateway.pem"
        self.key_file = folder / "gateway.key"
        self.show()

    def bad_server(self, name: str) -> Identity:
        """A certificate of a broker that is wrong in the way that `name` ends with."""
        if name.endswith("expired"):
            return self._authority.server(self._names, EXPIRED)
        if name.endswith("not_yet"):
            return self._authority.server(self._names, NOT_YET)
        if name.endswith("unknown"):
            return self._stranger.server(self._names)
        return self._authority.server(["broker.invalid"])

    def show(self, name: str | None = None) -> None:
        """Puts a bad certificate of the gateway into its place, or the good one back."""
        shown = self._own
        if name is not None:
            expired = name.endswith("expired")
            shown = self._authority.client(span=EXPIRED) if expired else self._stranger.client()
        for source, place in ((shown.key_file, self.key_file), (shown.cert_file, self.cert_file)):
            fresh = place.with_name(place.name + ".new")
            shutil.copyfile(source, fresh)
            os.chmod(fresh, 0o600)
            fresh.replace(place)

    def context(self, server: Identity) -> ssl.SSLContext:
        """TLS of a server that demands a certificate of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.cert_file, server.key_file)
        context.load_verify_locations(self.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def broker_tls(self, server: Identity) -> BrokerTls:
        """The same at mosquitto."""
        return BrokerTls(self.ca_file, server.cert_file, server.key_file)


class Site:
    """Everything of one scenario. `start`, then faults, then `stop`."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        mosquitto: Sequence[str],
        names: Names,
        uplink: Mapping[str, object] | None = None,
    ) -> None:
        """`uplink` are further settings of the uplink."""
        self.plan = plan
        self.changes = Changes()
        self.client_id = f"gateway-{plan.number}"
        self.host = "127.0.0.1" if plan.process else f"broker-{plan.number}.localhost"
        self.certificates = Certificates(folder / "tls", self.host)
        self.names = names
        # The ports are kept for this scenario while nobody listens there.
        self._held = [hold_port(), hold_port()]
        ports = [held.getsockname()[1] for held in self._held]
        at_broker = plan.transport == "tls_at_broker"
        self.broker = Broker(
            folder / "broker",
            mosquitto,
            extra=_QUEUED,
            port=ports[0],
            tls=self.certificates.broker_tls(self.certificates.server) if at_broker else None,
            plain_port=ports[1] if at_broker else None,
            persistent=not plan.forgetful,
        )
        self.plain_port = ports[1] if at_broker else ports[0]
        terminated = plan.transport == "tls"
        self.proxy = Proxy(
            ports[0],
            tls=self.certificates.context(self.certificates.server) if terminated else None,
            seed=plan.seed,
        )
        self.proxy.on_change = self.changes.notify
        self.gateway = GatewayProcess(
            folder / "gateway",
            site=SITE,
            broker=BrokerAddress(self.host, self.proxy.port),
            settings={"store": _STORE, "uplink": {**self._uplink_settings(), **(uplink or {})}},
        )
        self.inside: InsideGateway | None = None
        self.lines: list[SoftLine] = []
        for number in range(1, NODES + 1):
            _, key = self.gateway.add_node(f"place {number}")
            self.lines.append(SoftLine(SoftNode(key), folder / f"line{number}.tty"))
            self.gateway.set_port(f"line{number}", self.lines[-1].url)
        self._consumer: Consumer | None = None

    def _uplink_settings(self) -> dict[str, object]:
        uplink: dict[str, object] = {"backoff_max_s": _BACKOFF_MAX_S, "client_id": self.client_id}
        if self.plan.consumer_confirms:
            uplink["confirm"] = "consumer"
        if self.plan.transport != "plain":
            uplink["ca_file"] = str(self.certificates.ca_file)
            uplink["cert_file"] = str(self.certificates.cert_file)
            uplink["key_file"] = str(self.certificates.key_file)
        return uplink

    @property
    def consumer(self) -> Consumer:
        """The consumer, from `start` on."""
        assert self._consumer is not None
        return self._consumer

    async def start(self) -> None:
        """Starts all of it. Raises RigError."""
        loop = asyncio.get_running_loop()
        if not self.plan.process:
            self.names.set(self.host, "here")
        await asyncio.to_thread(self.broker.start)
        await self.proxy.start()

        def told() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.changes.notify)

        confirms = _PREFIX_KEPT if self.plan.consumer_confirms else None
        self._consumer = await asyncio.to_thread(
            lambda: Consumer("127.0.0.1", self.plain_port, confirms=confirms, on_change=told)
        )
        for line in self.lines:
            line.plug()
            line.boot()
        if self.plan.process:
            await self.gateway.start()
        else:
            self.inside = InsideGateway(self.gateway.config)
            await self.inside.start()

    async def stop(self) -> None:
        """Ends all of it, the gateway in order. Raises RigError where that hangs."""
        try:
            if self.inside is not None:
                await self.inside.stop()
            await asyncio.to_thread(self.gateway.stop)
        finally:
            await self.end()

    async def end(self) -> None:
        """Ends all of it at once. May be called again."""
        if self.inside is not None:
            await self.inside.abandon()
        self.gateway.kill()
        for line in self.lines:
            line.close()
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.close)
            self._consumer = None
        await self.proxy.stop()
        await asyncio.to_thread(self.broker.kill)
        self.names.forget(self.host)
        for held in self._held:
            held.close()

    async def uplink(self) -> dict[str, Any]:
        """The status of the uplink, {} where the gateway does not say."""
        try:
            status = await self.gateway.status()
        except SimpangError:
            return {}
        uplinks: list[dict[str, Any]] = status["uplinks"]
        return uplinks[0]

    def created(self) -> int:
        """Records that the nodes have made."""
        return sum(line.node.journal.created for line in self.lines)

    def held(self) -> int:
        """Records that the gateway has not acknowledged."""
        return sum(line.node.journal.held for line in self.lines)
