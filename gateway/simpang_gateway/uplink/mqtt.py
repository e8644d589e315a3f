"""One MQTT 5 connection, used once: aiomqtt, with what it hides or forgets made visible.

- A refused PUBACK looks like success to `aiomqtt.publish()`; here `send` gives the reason code.
- A link that ends between CONNACK and the first await is forgotten by aiomqtt, and the client waits for
  ever; here `lost` is completed by whatever ends the link, before CONNACK too.
- paho never repeats a message whose PUBACK does not come; the caller discards the connection instead.
- paho knows neither the broker's receive maximum nor its packet limit; `limits` has both.
- aiomqtt watches a socket for writing one turn of the loop late, when its number may already belong to
  another socket; here it does so at once.
- A connect that was given up goes on in its thread and would take over the client id later; `Connector`
  closes it as soon as it ends, and starts no second one before.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from . import sockets, tls
from .packets import (
    DEFAULT_RECEIVE_MAXIMUM,
    LOGIN_REFUSED,
    PUBACK_CODES,
    WRONG_VERSION,
    Limits,
    connect_properties,
    read_limits,
)

# paho's errors are ours to tell, as events; its lines would stand among them on standard error.
_QUIET = logging.getLogger(f"{__name__}.paho")
_QUIET.setLevel(logging.CRITICAL)
Incoming = Callable[[str, bytes, Any], None]
"""Takes topic, payload and properties of a message from the broker."""


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Where and as whom to connect, times in seconds. `password` is None without a login, `tls` for TCP."""

    host: str
    port: int
    client_id: str
    username: str | None
    password: str | None
    keepalive_s: int
    timeout_s: float
    tls: tls.TlsFiles | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a connection ended: words for people, and the broker's reason code if it gave one."""

    error: str
    reason_code: int | None = None


class ConnectFailed(Exception):
    """No connection came about: `code` of the message table, its `arguments`, `error`: the cause in words."""

    def __init__(
        self,
        code: str,
        error: str,
        arguments: Mapping[str, object] | None = None,
        reason_code: int | None = None,
    ) -> None:
        super().__init__(error)
        self.reason_code = reason_code
        self.code = code
        self.error = error
        self.arguments = arguments or {}


class ConnectionLost(Exception):
    """The connection ended before the acknowledgement: the message may or may not have arrived."""


class _Client(aiomqtt.Client):
    """aiomqtt's client with the callbacks that carry the reason codes; aiomqtt's own handling stays."""

    def __init__(self, options: ConnectOptions, will: aiomqtt.Will | None, incoming: Incoming) -> None:
        super().__init__(
            options.host,
            options.port,
            username=options.username,
            password=options.password,
            identifier=options.client_id,
            logger=_QUIET,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=will,
            timeout=options.timeout_s,
            keepalive=options.keepalive_s,
            clean_start=True,
            properties=connect_properties(),
            # Ours is the window; paho must never queue behind it.
            max_inflight_messages=DEFAULT_RECEIVE_MAXIMUM,
            socket_options=sockets.options(options.keepalive_s, options.timeout_s),
        )
        self._tls_files = options.tls
        self.tls: tls.Context | None = None
        self._incoming = incoming
        self._client.connect_timeout = options.timeout_s
        self.lost: asyncio.Future[Loss] = self._loop.create_future()
        self.thread_ended = asyncio.Event()
        self.connect_error: Exception | None = None
        self.subscribing: dict[int, asyncio.Future[list[int]]] = {}
        self._thread_started = False
        self._loop_thread = threading.get_ident()
        self.acks: dict[int, asyncio.Future[int]] = {}
        self.connack_properties: Properties | None = None
        self._abandoned = False
        self._odd: dict[int, int] = {}  # packet id: reason code that PUBACK must not have
        self._handle_puback = self._client._handle_pubackcomp
        self._client._handle_pubackcomp = self._on_puback  # type: ignore[assignment, method-assign]
        self._watch_disconnected()

    def set_lost(self, loss: Loss) -> None:
        """Completes `lost` once, and fails what waits for an acknowledgement or for CONNACK."""
        if self.lost.done():
            return
        self.lost.set_result(loss)
        pending: list[asyncio.Future[Any]] = [*self.acks.values(), *self.subscribing.values()]
        for waiting in pending:
            if not waiting.done():
                waiting.set_exception(ConnectionLost(loss.error))
                waiting.exception()  # nobody may be waiting for it any more
        self.acks.clear()
        self.subscribing.clear()
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError(loss.error))
            self._connected.exception()

    def _watch_disconnected(self) -> None:
        # aiomqtt reports errors of its socket callbacks on this future alone, and replaces it on connecting.
        self._disconnected.add_done_callback(self._on_disconnected_future)

    def _on_disconnected_future(self, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        self.set_lost(Loss(str(error) if error else "disconnected"))

    async def enter(self) -> None:
        """Connects. Raises aiomqtt.MqttError."""
        await self.__aenter__()
        self._watch_disconnected()

    def _client_connect(self) -> None:
        # Runs in a thread, which cannot be stopped: name resolution and TCP connect block.
        self._thread_started = True
        try:
            if self._tls_files is not None:
                self.tls = tls.make_context(self._tls_files)
                self._client.tls_set_context(self.tls)
            super()._client_connect()
        except tls.TlsFault as error:
            self.connect_error = error
            raise OSError(error.code) from error
        except OSError as error:
            self.connect_error = error
            if self.tls is not None:
                self.tls.give_up()
            raise
        except ValueError as error:  # a host that no name lookup accepts
            self.connect_error = error
            raise OSError(str(error)) from error
        finally:
            # Comes after the calls that register the socket with the loop.
            self._loop.call_soon_threadsafe(self._on_thread_ended)

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if sock is None:
            return  # paho looks twice: the loop has closed it since, and says so
        if threading.get_ident() == self._loop_thread:
            self._loop.add_writer(sock.fileno(), self._write_ready)
        else:  # while connecting: the socket stays open until the thread has ended
            super()._on_socket_register_write(client, userdata, sock)

    def _write_ready(self) -> None:
        try:
            self._client.loop_write()
        except (OSError, ValueError) as error:
            self.set_lost(Loss(str(error)))

    async def _misc_loop(self) -> None:
        # paho's ping is a second string to the session's signs of life: it needs no look every second.
        while self._client.loop_misc() == paho.MQTT_ERR_SUCCESS:
            await asyncio.sleep(max(1.0, self._keepalive / 4))

    def _on_thread_ended(self) -> None:
        self.thread_ended.set()
        if self._abandoned:
            self.discard()

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.connack_properties = properties
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        by_broker = flags.is_disconnect_packet_from_server
        who = "the broker ended the connection" if by_broker else "the link ended"
        self.set_lost(Loss(f"{who}: {reason_code}", reason_code.value if by_broker else None))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_puback(self, kind: Any) -> MQTTErrorCode:
        packet = self._client._in_packet["packet"]
        if len(packet) > 2 and packet[2] not in PUBACK_CODES:
            self._odd[int.from_bytes(packet[:2], "big")] = packet[2]
            self._client._in_packet["packet"] = bytearray((*packet[:2], 0x80, *packet[3:]))
        return self._handle_puback(kind)

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        waiting = self.acks.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(self._odd.pop(mid, reason_code.value))
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        # Not into aiomqtt's queue, which nobody empties.
        self._incoming(message.topic, bytes(message.payload), message.properties)

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None = None,
    ) -> None:
        waiting = self.subscribing.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result([code.value for code in reason_codes])

    def listen(self, topics: Sequence[str]) -> asyncio.Future[list[int]]:
        """Subscribes at QoS 1; the future gives a reason code for each filter or raises ConnectionLost."""
        waiting: asyncio.Future[list[int]] = self._loop.create_future()
        asked = [(topic, SubscribeOptions(qos=1)) for topic in topics]
        result, mid = (paho.MQTT_ERR_NO_CONN, None) if self.lost.done() else self._client.subscribe(asked)
        if result != paho.MQTT_ERR_SUCCESS or mid is None:
            waiting.set_exception(ConnectionLost("the connection is closed"))
            waiting.exception()
        else:
            self.subscribing[mid] = waiting
        return waiting

    def send(
        self, topic: str, payload: bytes, retain: bool, properties: Properties | None
    ) -> asyncio.Future[int]:
        """Publishes at QoS 1; the future gives PUBACK's reason code or raises ConnectionLost."""
        waiting: asyncio.Future[int] = self._loop.create_future()
        info = None if self.lost.done() else self._client.publish(topic, payload, 1, retain, properties)
        if info is None or info.rc != paho.MQTT_ERR_SUCCESS:
            waiting.set_exception(ConnectionLost("the connection is closed"))
            waiting.exception()
        else:
            self.acks[info.mid] = waiting
        return waiting

    def unsent(self) -> int:
        """Bytes that the other end has not confirmed to have: paho's queue and the kernel's."""
        waiting = sum(len(packet["packet"]) - packet["pos"] for packet in list(self._client._out_packet))
        sock = self._client.socket()
        return waiting if sock is None else waiting + sockets.queued(sock.fileno())

    def discard(self) -> None:
        """Closes the socket at once; while the connecting thread still runs, as soon as it ends."""
        self._abandoned = True
        self.set_lost(Loss("discarded"))
        if self._connected.cancelled():
            self._connected = self._loop.create_future()  # paho's callback must not meet a cancelled future
        elif self._connected.done():
            self._connected.exception()  # nobody may have waited for it
        if not self._thread_started:
            self.thread_ended.set()
        if not self.thread_ended.is_set():
            return
        self._client._reset_sockets()
        if self._misc_task is not None:
            self._misc_task.cancel()


class Connection:
    """An open connection. It is never reused: after `close` or `discard` nothing can be sent."""

    def __init__(self, client: _Client, limits: Limits) -> None:
        self._client = client
        self.limits = limits

    @property
    def lost(self) -> asyncio.Future[Loss]:
        """Completed when the connection has ended, whoever ended it."""
        return self._client.lost

    def send(
        self, topic: str, payload: bytes, *, retain: bool = False, properties: Properties | None = None
    ) -> asyncio.Future[int]:
        """Sends one message at QoS 1, without a timeout of its own.

        The future gives the reason code of PUBACK, a failure from 0x80 upwards, or raises ConnectionLost.
        """
        return self._client.send(topic, payload, retain, properties)

    def subscribe(self, topics: Sequence[str]) -> asyncio.Future[list[int]]:
        """Subscribes to topic filters at QoS 1, without a timeout of its own.

        The future gives a reason code for each, a failure from 0x80 upwards, or raises ConnectionLost.
        """
        return self._client.listen(topics)

    def unsent(self) -> int:
        """Bytes that were sent and that the other end has not got yet: 0 when all are there."""
        return self._client.unsent()

    async def close(self, timeout_s: float) -> None:
        """Says DISCONNECT (the last will is then not sent), waits at most `timeout_s`, and discards."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.__aexit__(None, None, None)
        except (TimeoutError, aiomqtt.MqttError):
            pass  # the link is dead: the broker will send the last will
        finally:
            self.discard()

    def discard(self) -> None:
        """Closes the socket without a word: the broker sends the last will."""
        self._client.discard()


class Connector:
    """Opens connections, one at a time. `incoming` is called with every message that a broker sends."""

    def __init__(self, will: Callable[[], aiomqtt.Will | None], incoming: Incoming) -> None:
        self._will = will
        self._incoming = incoming
        self._previous: asyncio.Event | None = None

    async def open(self, options: ConnectOptions) -> Connection:
        """Connects and waits for CONNACK, in at most 3 x `timeout_s`. Raises ConnectFailed."""
        if self._previous is not None:
            try:
                async with asyncio.timeout(options.timeout_s):
                    await self._previous.wait()
            except TimeoutError:
                raise ConnectFailed("uplink.dns", "the previous name lookup has not ended") from None
        client = _Client(options, self._will(), self._incoming)
        self._previous = client.thread_ended
        opened = False
        try:
            async with asyncio.timeout(2 * options.timeout_s):
                await client.enter()
            opened = True
        except TimeoutError:
            raise ConnectFailed("uplink.timeout", "no answer to the connection request") from None
        except aiomqtt.MqttError as error:
            raise _explain(error, client) from None
        finally:
            if not opened:
                client.discard()
        properties = client.connack_properties
        if getattr(properties, "MaximumQoS", 2) < 1:
            client.discard()
            raise ConnectFailed("uplink.qos", "maximum QoS 0")
        return Connection(client, read_limits(properties, options.keepalive_s))


def _explain(error: aiomqtt.MqttError, client: _Client) -> ConnectFailed:
    if isinstance(client.connect_error, tls.TlsFault):
        fault = client.connect_error
        shown = ", ".join(str(value) for value in fault.arguments.values())
        return ConnectFailed(fault.code, shown, fault.arguments)
    if client.tls is not None and not isinstance(error, aiomqtt.MqttCodeError):
        found = client.tls.fault or (client.connect_error if client.tls.begun else None)
        if found is not None and not isinstance(found, TimeoutError):
            return ConnectFailed(tls.explain(found), tls.words(found))
    if isinstance(client.connect_error, (socket.gaierror, ValueError)):
        return ConnectFailed("uplink.dns", str(client.connect_error))
    if isinstance(client.connect_error, TimeoutError):
        begun = client.tls is not None and client.tls.begun
        return ConnectFailed("uplink.timeout", "no answer from TLS" if begun else "no TCP connection")
    if isinstance(error, aiomqtt.MqttCodeError) and isinstance(error.rc, ReasonCode):
        words = f"{error.rc} (0x{error.rc.value:02x})"
        if error.rc.value in LOGIN_REFUSED:
            return ConnectFailed("uplink.refused_login", words)
        if error.rc.value == WRONG_VERSION:
            return ConnectFailed("uplink.version", words)
        return ConnectFailed("uplink.down", words, reason_code=error.rc.value)
    if client.connect_error is None and not client.lost.done():
        return ConnectFailed("uplink.timeout", "no answer to the connection request")
    return ConnectFailed("uplink.down", str(error))
