"""Whether each broker lets the gateway in: a short MQTT 5 login under a client id of its own."""

import asyncio
import socket
from collections.abc import Sequence

from simpang_gateway.config import Uplink
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe, read_password

_TIMEOUT_S = 5
# MQTT 5.0, 3.2.2.2: unsupported version; bad user name or password, not authorized, banned, bad method.
_WRONG_VERSION = 0x84
_LOGIN_REFUSED = frozenset({0x86, 0x87, 0x8A, 0x8C})


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
        password = read_password(uplink.password_file) if uplink.password_file else None
        async with asyncio.timeout(_TIMEOUT_S):
            await asyncio.get_running_loop().getaddrinfo(uplink.host, uplink.port, type=socket.SOCK_STREAM)
            await _log_in(uplink, password)
    except SimpangError as error:
        return error
    except TimeoutError:
        return SimpangError("uplink.timeout", uplink=name, host=host, seconds=_TIMEOUT_S)
    except (socket.gaierror, UnicodeError) as error:
        return SimpangError("uplink.dns", uplink=name, host=uplink.host, error=describe(error))
    return None


async def _log_in(uplink: Uplink, password: str | None) -> None:
    import aiomqtt

    host = f"{uplink.host}:{uplink.port}"
    try:
        # Another client id than the gateway's: the broker would throw a running gateway out.
        async with aiomqtt.Client(
            uplink.host,
            uplink.port,
            username=uplink.username,
            password=password,
            identifier=f"{uplink.client_id}-check",
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=_TIMEOUT_S,
        ):
            return
    except aiomqtt.MqttError as error:
        reason = getattr(getattr(error, "rc", None), "value", None)
        if reason in _LOGIN_REFUSED:
            raise SimpangError("uplink.refused_login", uplink=uplink.name, host=host, reason=error) from error
        if reason == _WRONG_VERSION:
            raise SimpangError("uplink.version", uplink=uplink.name, host=host, reason=error) from error
        raise SimpangError("uplink.down", uplink=uplink.name, host=host, error=error) from error
