"""Arguments of requests on the control socket."""

from collections.abc import Mapping
from typing import Any

from .errors import SimpangError


def number(request: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """Return a whole number from `least` to `most`, or None where it is left out.

    Raises SimpangError control.request.
    """
    value = request.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SimpangError("control.request", error=name, example=f'"{name}": {least}..{most}')
    return value
