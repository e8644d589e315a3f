"""`python -m simpang_gateway.validated FILE`: the configuration as JSON, or what is wrong with it.

For the gateway process, which keeps no validation in its memory; see `tables`.
"""

import json
import sys

from .config import load
from .errors import SimpangError


def main() -> None:
    """Print {"tables": ...}, or {"code": ..., "arguments": ...}."""
    try:
        found: dict[str, object] = {"tables": load(sys.argv[1]).model_dump(mode="json")}
    except SimpangError as error:
        found = {"code": error.code, "arguments": error.arguments}
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
