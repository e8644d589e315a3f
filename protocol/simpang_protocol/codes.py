"""Numbers that travel in records, with their names: node events, drop causes, sensor states, severities.

A number is never reused. The gateway, the documents and the node all read this one table.
"""

INFO = 0
WARNING = 1
ERROR = 2
SEVERITIES = ("info", "warning", "error")

BOOT = 1
DROP = 2
CRASH = 3
CONFIG = 4
SENSOR = 5
EPOCH = 6
JOURNAL = 7
TIME = 8
SLOT = 9
COMMAND = 10
SETTINGS = 13
SELFTEST = 14

# number: (name, severity, meaning of arg1, meaning of arg2)
EVENTS = {
    BOOT: ("boot", INFO, "reset cause", "boots without success"),
    DROP: ("drop", WARNING, "epoch", "records"),
    CRASH: ("crash", ERROR, "0", "reset cause"),
    CONFIG: ("config", ERROR, "0", "0"),
    SENSOR: ("sensor", WARNING, "sensor number", "state"),
    EPOCH: ("epoch", INFO, "new epoch", "reason"),
    JOURNAL: ("journal", ERROR, "records", "0"),
    TIME: ("time", INFO, "uptime s", "Unix s - 1577836800"),
    SLOT: ("slot", INFO, "slot number", "1 = on trial"),
    COMMAND: ("command", INFO, "command id", "outcome"),
    SETTINGS: ("settings", INFO, "outcome", "command id"),
    SELFTEST: ("selftest", INFO, "command id", "65536 * part + 256 * number + result"),
}

# What became of a command: arg2 of its event, and arg1 of `settings`.
DONE = 0
REFUSED = 1
UNKNOWN_OP = 2
FAILED = 3
# Begun, but not known whether done: the node was reset meanwhile.
INTERRUPTED = 4
# Accepted, and being tried: a `settings` event follows with `done` or `rolled_back`.
TRIAL = 5
# A part of it is here; the text says how many there are.
PART = 6
ROLLED_BACK = 7
OUTCOMES = ("done", "refused", "unknown_op", "failed", "interrupted", "trial", "part", "rolled_back")

# What a self-test looks at, and what it finds.
TEST_PARTS = ("sensor", "journal", "memory", "link", "clock", "supply", "configuration")
PASS = 0
FAIL = 1
NOT_KNOWN = 2
TEST_RESULTS = ("pass", "fail", "unknown")

DROP_FULL = 1
DROP_DAMAGED = 2
DROP_CAUSES = {DROP_FULL: "journal_full", DROP_DAMAGED: "journal_damaged"}

SENSOR_STATES = ("off", "warming_up", "ok", "silent", "faulty")


def event_name(number: int) -> str:
    """Return the stable name of an event number; `event-N` for one that this version does not know."""
    known = EVENTS.get(number)
    return known[0] if known else "event-%d" % number
