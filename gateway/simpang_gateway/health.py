"""What `/health` answers: whether somebody should look, and why. See docs/metrics.md."""

from collections.abc import Mapping
from typing import Any


def health(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the health of a gateway with this status; `healthy` is False for any alarm that is an error."""
    alarms = [{key: alarm[key] for key in ("code", "key", "severity", "since")} for alarm in status["alarms"]]
    reasons = sorted({alarm["code"] for alarm in alarms if alarm["severity"] == "error"})
    store_healthy = bool(status["store"]["healthy"])
    return {
        "v": 1,
        "healthy": store_healthy and not reasons,
        "reasons": reasons if reasons or store_healthy else ["store.io"],
        "alarms": alarms,
        "clock_synced": status["clock"]["synced"],
        "store": {"healthy": store_healthy, "waiting": status["store"]["waiting"]},
        "ports": {port["port"]: port["open"] for port in status["ports"]},
        "uplinks": {
            uplink["name"]: {"up": uplink["state"] == "up", "backlog": uplink["backlog"]}
            for uplink in status["uplinks"]
        },
    }
