"""A subscriber at the broker, as a city's platform is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiomqtt

from simpang.demo.errors import DemoError


class Listener:
    """Subscribes to `topics` with MQTT 5 and QoS 1; `on_message(topic, payload)` gets what comes.

    `failed` gets a DemoError when the connection ends without being told to: what came meanwhile would be
    missing from the accounts. It gets what `on_message` raises, too.
    """

    def __init__(self, host: str, port: int, topics: str, on_message: Callable[[str, bytes], None]) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host, self._port, self._topics = host, port, topics
        self._on_message = on_message
        self._subscribed = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the subscription holds. Raises DemoError."""
        self._listening = asyncio.create_task(self._listen())
        self._listening.add_done_callback(self._ended)
        waiting = asyncio.create_task(self._subscribed.wait())
        try:
            await asyncio.wait({waiting, self._listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self.failed.done():
            self.failed.result()

    async def stop(self) -> None:
        """End the connection."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})

    async def _listen(self) -> None:
        async with aiomqtt.Client(
            self._host, self._port, identifier="simpang-demo", protocol=aiomqtt.ProtocolVersion.V5
        ) as client:
            await client.subscribe(self._topics, qos=1)
            self._subscribed.set()
            async for message in client.messages:
                payload = message.payload
                self._on_message(str(message.topic), payload if isinstance(payload, bytes) else b"")

    def _ended(self, listening: asyncio.Task[None]) -> None:
        error = None if listening.cancelled() else listening.exception()
        if error is None:
            return
        if isinstance(error, aiomqtt.MqttError):
            cause = str(error).rstrip(".")
            error = DemoError(f"the subscriber lost the broker: {cause}. Next: run the demo again.")
        self.failed.set_exception(error)
        self.failed.exception()  # nobody may be waiting for it
