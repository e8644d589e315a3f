"""Whether each broker lets the gateway in: a short MQTT 5 login under a client id of its own."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from simpang_gateway.config import Uplink
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe, read_password

_TIMEOUT_S = 5.0


def check_uplinks(uplinks: Sequence[Uplink]) -> list[tuple[str, SimpangError | None]]:
    """Return (where, what is wrong) for each uplink; all are tried at once, for a few seconds."""
    return asyncio.run(_check_all(uplinks)) if uplinks else []


async def _check_all(uplinks: Sequence[Uplink]) -> list[tuple[str, SimpangError | None]]:
    errors = await asyncio.gather(*(_check(uplink) for uplink in uplinks))
    return [
        (f"{uplink.name}: {uplink.host}:{uplink.port}", error)
        for uplink, error in zip(uplinks, errors, strict=True)
    ]


async def _check(uplink: Uplink) -> SimpangError | None:
    name, host = uplink.name, f"{uplink.host}:{uplink.port}"
    try:
        if uplink.password_file:
            read_password(uplink.password_file)
        async with asyncio.timeout(2 * _TIMEOUT_S):
            await asyncio.get_running_loop().getaddrinfo(uplink.host, uplink.port, type=socket.SOCK_STREAM)
            await _log_in(uplink)
    except SimpangError as error:
        return error
    except TimeoutError:
        return SimpangError("uplink.timeout", uplink=name, host=host, seconds=_TIMEOUT_S)
    except (socket.gaierror, UnicodeError) as error:
        return SimpangError("uplink.dns", uplink=name, host=uplink.host, error=describe(error))
    return None


async def _log_in(uplink: Uplink) -> None:
    from simpang_gateway.uplink.login import make_options
    from simpang_gateway.uplink.mqtt import ConnectFailed, Connector
    from simpang_gateway.uplink.troubles import texts_of

    def ignore(topic: str, payload: bytes, properties: Any) -> None:
        """Nothing is subscribed to."""

    # Another client id than the gateway's: the broker would throw a running gateway out. And no last will:
    # the running gateway's status says the truth.
    connector = Connector(lambda: None, ignore)
    try:
        options = make_options(uplink, "check")
        options = replace(options, client_id=f"{uplink.client_id}-check", timeout_s=_TIMEOUT_S)
        connection = await connector.open(options)
    except ConnectFailed as error:
        host = f"{uplink.host}:{uplink.port}"
        arguments = texts_of(error.code, host, error.error, _TIMEOUT_S, error.arguments)
        raise SimpangError(error.code, uplink=uplink.name, **arguments) from None
    await connection.close(_TIMEOUT_S)
