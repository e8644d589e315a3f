"""The parts `record` and `sleep` of the configuration: how samples become records, and when a node sleeps."""

from node.configread import ConfigError, only, setting, table_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from node.config import Config

# Periods on the wire: 1 to 127 s, then whole minutes (protocol, "Plaintext").
_LONGEST_IN_SECONDS = 127
# Before each sample of a node that sleeps: its start, and what sensors need until their first value.
_START_S = 1
_FIRST_VALUE_S = 3


class Record:
    """How samples become records: `interval_ms` from one to the next, `period_s` as the record states it (0:
    a moment), at most `batch` samples and `latency_s` seconds a record."""

    interval_ms: int
    period_s: int
    batch: int
    latency_s: int


class Sleep:
    """Deep sleep between samples: wake `lead_s` before each, stay awake for at most `awake_s` after it."""

    awake_s: int
    lead_s: int


def read(table: "dict[str, Any]") -> Record:
    only(table, "record", ("interval_s", "interval_ms", "batch", "latency_s"))
    record = Record()
    record.latency_s = setting(table, "latency_s", "record.latency_s")
    record.batch = setting(table, "batch", "record.batch")
    if "interval_ms" in table:
        if "interval_s" in table:
            raise ConfigError("record.interval_ms", "stands beside interval_s", "keep one of the two")
        record.interval_ms = setting(table, "interval_ms", "record.interval_ms")
        record.period_s = 0
        # Below a second a sample is a moment, and a record holds one moment.
        if table.get("batch", 1) != 1:
            problem = f"is {record.batch}, but a record holds one moment"
            raise ConfigError("record.batch", problem, "leave it out")
        record.batch = 1
        return record
    interval_s = setting(table, "interval_s", "record.interval_s")
    if interval_s > _LONGEST_IN_SECONDS and interval_s % 60:
        problem = f"is {interval_s}: above {_LONGEST_IN_SECONDS} s only whole minutes can be stated"
        raise ConfigError("record.interval_s", problem, "use a multiple of 60")
    record.interval_ms = interval_s * 1000
    record.period_s = interval_s
    return record


def read_sleep(given: "dict[str, Any]", config: "Config") -> Sleep:
    table = table_of(given, "sleep", "")
    only(table, "sleep", ("awake_s",))
    sleep = Sleep()
    sleep.awake_s = setting(table, "awake_s", "sleep.awake_s")
    sleep.lead_s = _START_S
    for sensor in config.sensors:
        sleep.lead_s = max(sleep.lead_s, _START_S + sensor.options.get("warmup_s", 0) + _FIRST_VALUE_S)
    link = config.link
    if link.kind == "rs485":
        raise ConfigError("sleep", "does not go with a bus: whoever is polled must be awake", "remove it")
    if link.kind == "espnow" and not link.channel:
        raise ConfigError("sleep", "leaves no time to search for a channel", "set link.channel")
    record = config.record
    if record.interval_ms <= sleep.lead_s * 1000:
        problem = f"is too short for sleep: each sample needs {sleep.lead_s} s before it"
        raise ConfigError("record.interval_s", problem, "write a longer interval, or remove sleep")
    # Between samples nothing is measured, so each is a moment, and a record holds one moment.
    if table_of(given, "record", "").get("batch", 1) != 1:
        raise ConfigError("record.batch", "goes not with sleep: a record holds one moment", "leave it out")
    record.period_s = 0
    record.batch = 1
    return sleep
