"""Turns what the node has to say into durable records: batches of samples, health reports, events."""

from simpang_protocol import codes, record, schema
from simpang_protocol.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from node.clock import Clock
    from node.journal import Journal

    Row = tuple["int | None", ...]


class Recorder:
    """Builds records with the clock's time basis and makes them durable in the journal.

    `on_failure(error)` is told when the flash refuses a record; sampling goes on, and a `journal` event says
    how many were refused as soon as one is taken again.
    """

    def __init__(self, clock: "Clock", on_failure: "Callable[[OSError], None]") -> None:
        self._clock = clock
        self._on_failure = on_failure
        self._journal: Journal | None = None
        self._refused = 0

    def attach(self, journal: "Journal") -> None:
        """Set the journal; it needs `drop_record` of this object to be made itself."""
        self._journal = journal

    def now(self) -> "tuple[int, int]":
        """Return (basis, t0) for something that happens now."""
        basis = self._clock.basis()
        now_ms = self._clock.now_ms()
        if basis == record.UPTIME or now_ms is None:
            return record.UPTIME, self._clock.uptime_s()
        return basis, now_ms // 1000

    def write_batch(self, basis: int, t0: int, period_s: int, rows: "list[Row]") -> None:
        """Write samples of the air schema, in halves where they do not fit into one record."""
        try:
            self._write(schema.AIR, basis, t0, period_s, rows, [])
        except RecordError as error:
            if error.cause != "size" or len(rows) < 2:
                raise
            half = len(rows) // 2
            self.write_batch(basis, t0, period_s, rows[:half])
            self.write_batch(basis, t0 + half * period_s, period_s, rows[half:])

    def write_health(self, row: "Row", items: "list[tuple[int, bytes]]") -> None:
        """Write a health report."""
        basis, t0 = self.now()
        self._write(schema.HEALTH, basis, t0, 0, [row], items)

    def write_event(
        self,
        code: int,
        arg1: int,
        arg2: int,
        items: "list[tuple[int, bytes]]",
        severity: "int | None" = None,
    ) -> None:
        """Write an event of `simpang_protocol.codes`, with another `severity` than that of its code."""
        basis, t0 = self.now()
        if severity is None:
            severity = codes.EVENTS[code][1]
        self._write(schema.EVENT, basis, t0, 0, [(code, severity, arg1, arg2)], items)

    def drop_record(self, epoch: int, first: int, last: int, records: int, seq: int) -> bytes:
        """Build the event that gives up the last records of an epoch; the journal writes it."""
        basis, t0 = self.now()
        row = (codes.DROP, codes.EVENTS[codes.DROP][1], epoch, records)
        item = record.lost_range_item(epoch, first, last, codes.DROP_FULL)
        return record.build(schema.EVENT, seq, basis, t0, 0, [row], [item])

    def _write(
        self,
        kind: "schema.Schema",
        basis: int,
        t0: int,
        period_s: int,
        rows: "list[Row]",
        items: "list[tuple[int, bytes]]",
    ) -> None:
        journal = self._journal
        assert journal is not None
        try:
            journal.append(record.build(kind, journal.prepare(), basis, t0, period_s, rows, items))
        except OSError as error:
            self._refused += 1
            self._on_failure(error)
            return
        if self._refused:
            refused, self._refused = self._refused, 0
            self.write_event(codes.JOURNAL, refused, 0, [])
            if self._refused:
                self._refused += refused
