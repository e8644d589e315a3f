"""Whether the TLS files of an uplink can be used, and for how long."""

from collections.abc import Iterator

from simpang_gateway.clock import SystemClock
from simpang_gateway.config import Uplink
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import read_secret


def check_certificates(uplink: Uplink) -> Iterator[tuple[str, SimpangError | None]]:
    """Yield (where, what is wrong) for the TLS files of an uplink; nothing for one without TLS."""
    if not uplink.tls:
        return
    from simpang_gateway.uplink.login import CertificateWatch
    from simpang_gateway.uplink.tls import TlsFault, TlsFiles, make_context
    from simpang_gateway.uplink.troubles import Troubles

    where = f"{uplink.name}: {uplink.cert_file or uplink.ca_file or 'TLS'}"
    try:
        if uplink.key_file is not None:
            read_secret(uplink.key_file, allow_group=True)
        make_context(TlsFiles(uplink.ca_file, uplink.cert_file, uplink.key_file, uplink.server_name))
    except TlsFault as fault:
        yield where, SimpangError(fault.code, uplink=uplink.name, **fault.arguments)
        return
    except SimpangError as error:
        yield where, error
        return
    found: list[SimpangError] = []

    def note(code: str, **arguments: object) -> None:
        found.append(SimpangError(code, **arguments))

    def ignore(code: str, on: bool, **arguments: object) -> None:
        """The event says the same."""

    CertificateWatch(uplink, SystemClock(), Troubles(uplink.name, uplink.host, 0, note, ignore)).look()
    if not found:
        yield where, None
    yield from ((where, error) for error in found)
