"""The city's end of a command: publishes it at the broker and collects its states."""

import contextlib
import json
import queue
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from simpang_gateway.config import Uplink
from simpang_gateway.downlink.envelope import Order
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe, read_password
from simpang_gateway.uplink.tls import TlsFault, TlsFiles, make_context

FINAL = frozenset({"done", "failed", "refused", "expired"})
_CONNECT_S = 10.0
_REFUSED_FROM = 0x80
_LOST = "lost"


class CityLink:
    """One connection to a broker, as a context. Raises SimpangError command.broker on entering."""

    def __init__(self, broker: Uplink) -> None:
        self._broker = broker
        self._host = f"{broker.host}:{broker.port}"
        self._answers: queue.Queue[tuple[str, int, str]] = queue.Queue()
        self._messages: queue.Queue[bytes] = queue.Queue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._filter: str | None = None
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *found: self._answer(_LOST, found[3])
        self._client.on_publish = lambda *found: self._answer("publish", found[3])
        self._client.on_subscribe = lambda *found: self._answer("subscribe", found[3][0])
        self._client.on_message = lambda _client, _userdata, message: self._messages.put(
            bytes(message.payload)
        )

    def __enter__(self) -> "CityLink":
        broker = self._broker
        try:
            if broker.username:
                password = read_password(broker.password_file) if broker.password_file else None
                self._client.username_pw_set(broker.username, password)
            if broker.tls:
                self._client.tls_set_context(
                    make_context(
                        TlsFiles(broker.ca_file, broker.cert_file, broker.key_file, broker.server_name)
                    )
                )
            self._client.connect_timeout = _CONNECT_S
            self._client.connect(broker.host, broker.port, keepalive=15)
            self._client.loop_start()
            self._wait("connect")
        except TlsFault as error:
            self._end()
            raise SimpangError(error.code, uplink=broker.name, **error.arguments) from error
        except (OSError, ValueError, ssl.SSLError) as error:
            self._end()
            raise SimpangError("command.broker", host=self._host, error=describe(error)) from error
        except SimpangError:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.disconnect()
        self._end()

    def send(self, order: Order, data: bytes, *, retain: bool = False) -> None:
        """Publish a command, with QoS 1. Raises SimpangError command.broker, where the broker refuses it."""
        self._filter = f"{self._topic(order)}/state/{order.id}"
        self._client.subscribe(self._filter, qos=1)
        self._wait("subscribe")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = max(1, order.expires - int(time.time()))
        self._client.publish(self._topic(order), data, qos=1, retain=retain, properties=properties)
        self._wait("publish")

    def clear(self, order: Order) -> None:
        """Take a retained command away from the broker."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._answers.get_nowait()  # of connections that were lost and made anew
        self._client.publish(self._topic(order), b"", qos=1, retain=True)
        self._wait("publish")

    def states(
        self, digest: str, seconds: float, now: Callable[[], float] = time.monotonic
    ) -> Iterator[dict[str, Any]]:
        """Yield the states of the command with this digest, as they come, until the last or the deadline."""
        deadline = now() + seconds
        last: dict[str, Any] | None = None
        while last is None or last["state"] not in FINAL:
            try:
                payload = self._messages.get(timeout=max(0.0, deadline - now()))
            except queue.Empty:
                return
            try:
                found = json.loads(payload)
                if found["digest"] != digest or found == last or not isinstance(found["state"], str):
                    continue
            except (ValueError, KeyError, TypeError):
                continue  # somebody else's
            last = found
            yield found

    def _topic(self, order: Order) -> str:
        return f"{self._broker.prefix}/{order.site}/gateway/command"

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        _flags: paho.ConnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._answer("connect", code)
        if self._filter is not None:
            # After a lost connection: a state that came meanwhile is retained.
            client.subscribe(self._filter, qos=1)

    def _answer(self, what: str, code: ReasonCode) -> None:
        self._answers.put((what, code.value, str(code)))

    def _wait(self, what: str) -> None:
        try:
            while True:
                found, code, words = self._answers.get(timeout=_CONNECT_S)
                if found == what:
                    break
                if found == _LOST:
                    code = _REFUSED_FROM
                    break
        except queue.Empty:
            code, words = _REFUSED_FROM, f"no answer in {_CONNECT_S:g} s"
        if code >= _REFUSED_FROM:
            raise SimpangError("command.broker", host=self._host, error=words)

    def _end(self) -> None:
        self._client.loop_stop()
