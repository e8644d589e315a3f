"""Whether a port could be opened, and why not."""

import errno
import fcntl
import os
import stat

from simpang_gateway.config import Port
from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe


def check_port(port: Port, running: bool) -> SimpangError | None:
    """Return what keeps `port` from being opened. With `running` a gateway holds it, so it is only looked at.

    A device is opened for a moment, without changing its settings; a URL is opened by pyserial.
    """
    if "://" in port.url:
        return None if running else _check_url(port)
    try:
        if not stat.S_ISCHR(os.stat(port.url).st_mode):
            return SimpangError("port.failed", port=port.name, url=port.url, error=os.strerror(errno.ENOTTY))
        if running:
            return None
        descriptor = os.open(port.url, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return _explain(port, error)
    try:
        # pyserial takes this lock, as every well-behaved program does; the others use TIOCEXCL (EBUSY).
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return _explain(port, error)
    finally:
        os.close(descriptor)
    return None


def _check_url(port: Port) -> SimpangError | None:
    import serial

    try:
        serial.serial_for_url(port.url, baudrate=port.baud, timeout=0).close()
    except (OSError, ValueError) as error:
        return SimpangError("port.failed", port=port.name, url=port.url, error=describe(error))
    return None


def _explain(port: Port, error: OSError) -> SimpangError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return SimpangError("port.missing", port=port.name, url=port.url)
    if error.errno in (errno.EBUSY, errno.EWOULDBLOCK):
        return SimpangError("port.busy", port=port.name, url=port.url)
    if error.errno in (errno.EACCES, errno.EPERM):
        return SimpangError("port.permission", port=port.name, url=port.url)
    return SimpangError("port.failed", port=port.name, url=port.url, error=describe(error))
