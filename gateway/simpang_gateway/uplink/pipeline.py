"""Which stored rows go to the broker next, and which have arrived: no I/O, no clock of its own.

Rows are offered in the order of their ids. A stream is (node, schema): at most one message of a stream is on
the way, so its order at the broker is the order of the store, over refusals and reconnections too. Because
of that, "delivered up to id N" describes a whole stream, and what was delivered costs one number a stream
in memory, however long another stream is held up.

A refused stream waits, keeps one row in memory for its next attempt (that one record may be the cause), and
is read again from the store once an attempt succeeds. After a lost connection nothing is kept: reading
starts again behind the cursor, and what was delivered already is passed over.

Some brokers, and some client libraries, end the connection instead of refusing one message. A message that
was alone on the way when that happened twice, with nothing of its stream delivered between, counts as
refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .ranges import Range, RangeSet

Stream = tuple[int, int]  # node id, schema id


class Entry(NamedTuple):
    """One stored row, ready to be sent: `data` is its record as text of the message."""

    id: int
    stream: Stream
    data: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to send: rows of one stream in order. `token` names it in `acked` and `failed`."""

    token: int
    stream: Stream
    entries: tuple[Entry, ...]
    size: int


class _StreamState:
    __slots__ = ("delivered", "failures", "flight", "held", "missing_from", "retry_at_s", "suspicions")

    def __init__(self) -> None:
        self.held: deque[Entry] = deque()
        self.flight: Outgoing | None = None
        self.delivered = 0
        self.missing_from: int | None = None  # lowest id that was read but had to be let go
        self.failures = 0
        self.retry_at_s: float | None = None
        self.suspicions = 0

    def first_undelivered(self) -> int | None:
        if self.flight is not None:
            return self.flight.entries[0].id
        if self.held:
            return self.held[0].id
        return self.missing_from

    def idle(self) -> bool:
        return self.first_undelivered() is None and not self.failures and not self.suspicions


class Pipeline:
    """The rows between the store and the broker.

    `cursor` and `done` are what was saved last. `inflight` (messages), `pack` (records a message) and
    `ahead` (rows in memory) are the bounds; `retry_delay_s` gives the wait after the n-th refusal in a row.
    """

    MESSAGE_HEAD = 256  # bytes of a message besides its records: generous, for the byte window only

    def __init__(
        self,
        cursor: int = 0,
        done: Iterable[Range] = (),
        *,
        retry_delay_s: Callable[[int], float],
        inflight: int = 20,
        pack: int = 200,
        ahead: int = 2048,
        done_limit: int = 4096,
    ) -> None:
        if cursor < 0 or min(inflight, pack, ahead, done_limit) < 1:
            raise ValueError("cursor below 0 or a bound below 1")
        self._cursor = cursor
        self._head = cursor
        self._done = RangeSet(done, limit=done_limit)
        self._done.discard_through(cursor)
        self._retry_delay_s = retry_delay_s
        self._inflight = inflight
        self._pack = pack
        self._ahead = ahead
        self._streams: dict[Stream, _StreamState] = {}
        self._flights: dict[int, _StreamState] = {}
        self._still: Callable[[], None] | None = None  # told when nothing is on the way, while halted
        self._halted = False
        self._held = 0  # rows in memory, but for the one of each refused stream: those must not fill it up
        self._token = 0

    @property
    def cursor(self) -> int:
        """Every row up to this id is delivered or set aside."""
        return self._cursor

    @property
    def read_after(self) -> int:
        """The id after which the next rows must be read from the store."""
        return self._head

    @property
    def room(self) -> int:
        """How many rows may be read now."""
        return max(0, self._ahead - self._held)

    @property
    def gap(self) -> int | None:
        """How many ids lie between `read_after` and the next that are delivered; None where none are."""
        following = self._done.next_after(self._head)
        return None if following is None else following - self._head - 1

    def skip_done(self) -> None:
        """Move reading past what is delivered: between a few old rows there may be millions of them."""
        before = self._head
        while (end := self._done.end_of_run(self._head + 1)) > self._head:
            self._head = end
        if self._head > before:
            self._advance()

    @property
    def in_flight(self) -> int:
        """Messages on the way."""
        return len(self._flights)

    @property
    def in_flight_bytes(self) -> int:
        """Estimated bytes on the way."""
        return sum(state.flight.size for state in self._flights.values() if state.flight is not None)

    @property
    def refused_streams(self) -> int:
        """Streams whose last attempt was refused."""
        return sum(1 for state in self._streams.values() if state.failures)

    def done(self) -> list[Range]:
        """Ranges of ids above the cursor that are delivered; bounded, so perhaps not all of them."""
        return self._done.ranges()

    def wanted(self, row_id: int, stream: Stream) -> bool:
        """Whether this row still has to be made ready: False if it is delivered, in memory, or must wait."""
        if row_id <= self._cursor or row_id in self._done:
            return False
        state = self._streams.get(stream)
        if state is None:
            return True
        if row_id <= state.delivered or (state.flight is not None and row_id <= state.flight.entries[-1].id):
            return False
        if state.held and row_id <= state.held[-1].id:
            return False
        if state.missing_from is None and not (state.failures and (state.held or state.flight is not None)):
            return True
        state.missing_from = min(row_id, state.missing_from or row_id)
        return False

    def offer(self, after: int, through: int, entries: Iterable[Entry], aside: Iterable[int] = ()) -> bool:
        """Takes in what was read: `entries` and the ids set aside, out of all rows in (after, through].

        Rows of that span which are in neither must have been unwanted. Returns False, and takes nothing, if
        reading has meanwhile moved to another place (after `reset`, or when a refused stream goes on).
        """
        if after != self._head:
            return False
        if through < after:
            raise ValueError("rows must be offered in ascending order")
        for entry in entries:
            if not self.wanted(entry.id, entry.stream):
                continue
            state = self._streams.setdefault(entry.stream, _StreamState())
            state.held.append(entry)
            if not state.failures:
                self._held += 1
        for row_id in aside:
            self._done.add(row_id)
        self._head = through
        self._advance()
        return True

    def next_messages(self, now_s: float, *, window: int, message: int, slots: int) -> list[Outgoing]:
        """Takes what may be sent now, oldest rows first: at most `slots` messages of `message` bytes each,
        and `window` bytes on the way. A message that is larger holds one record; one is always allowed.
        """
        found: list[Outgoing] = []
        slots = min(slots, self._inflight - len(self._flights))
        if slots < 1 or self._halted:
            return found
        used = self.in_flight_bytes
        ready = sorted(
            (state.held[0].id, stream)
            for stream, state in self._streams.items()
            if state.held and state.flight is None and (state.retry_at_s is None or state.retry_at_s <= now_s)
        )
        for _, stream in ready:
            if len(found) >= slots or (self._flights and used >= window):
                break
            taken = self._take(stream, self._streams[stream], min(message, window - used))
            used += taken.size
            found.append(taken)
        return found

    def _take(self, stream: Stream, state: _StreamState, limit: int) -> Outgoing:
        entries = [state.held.popleft()]
        size = self.MESSAGE_HEAD + len(entries[0].data)
        while state.held and len(entries) < self._pack and size + len(state.held[0].data) + 1 <= limit:
            size += len(state.held[0].data) + 1
            entries.append(state.held.popleft())
        if not state.failures:
            self._held -= len(entries)
        self._token += 1
        state.flight = Outgoing(self._token, stream, tuple(entries), size)
        self._flights[self._token] = state
        return state.flight

    def halt(self, still: Callable[[], None]) -> None:
        """Send nothing new until `go_on`; `still` is called once nothing is on the way, perhaps at once."""
        self._halted = True
        self._still = still
        self._tell_still()

    def go_on(self, cursor: int | None = None, done: Iterable[Range] = ()) -> None:
        """Send again; with `cursor`, from another place in the store, perhaps what was delivered already.

        Raises ValueError where something is on the way then: it would be counted at the wrong place.
        """
        if cursor is not None:
            if self._flights:
                raise ValueError("messages are on the way")
            self._cursor = self._head = cursor
            self._done = RangeSet(done, limit=self._done.limit)
            self._held = 0
            for state in self._streams.values():
                state.held.clear()
                state.missing_from = None
                state.delivered = 0
        self._halted = False
        self._still = None

    def _tell_still(self) -> None:
        if self._still is not None and not self._flights:
            still, self._still = self._still, None
            still()

    def acked(self, token: int) -> int:
        """The broker took the message: its rows are delivered. Returns how many, 0 for an unknown token."""
        state = self._flights.pop(token, None)
        if state is None or state.flight is None:
            return 0
        entries = state.flight.entries
        state.flight = None
        state.delivered = entries[-1].id
        state.failures = 0
        state.suspicions = 0
        state.retry_at_s = None
        for entry in entries:
            self._done.add(entry.id)
        if state.missing_from is not None:
            # What was let go while the stream was refused is read again; rows known by then are unwanted.
            self._head = min(self._head, state.missing_from - 1)
            state.missing_from = None
        self._advance()
        self._tell_still()
        return len(entries)

    def failed(self, token: int, now_s: float) -> int:
        """The broker refused the message: the stream waits. Returns the refusals in a row, 0 if unknown."""
        state = self._flights.pop(token, None)
        if state is None or state.flight is None:
            return 0
        waiting = [*state.flight.entries, *state.held]
        if not state.failures:
            self._held -= len(state.held)
        state.flight = None
        state.held = deque(waiting[:1])
        if len(waiting) > 1:
            state.missing_from = min(waiting[1].id, state.missing_from or waiting[1].id)
        self._postpone(state, now_s)
        self._tell_still()
        return state.failures

    def _postpone(self, state: _StreamState, now_s: float) -> None:
        state.failures += 1
        state.retry_at_s = now_s + self._retry_delay_s(state.failures)

    def next_retry_s(self, now_s: float) -> float | None:
        """The first moment after `now_s` when a refused stream may be tried again; None if there is none."""
        times = (state.retry_at_s for state in self._streams.values() if state.flight is None)
        return min((at for at in times if at is not None and at > now_s), default=None)

    def pass_over(self, message: Outgoing) -> None:
        """A single record counts as done although the broker never takes it; on the way still, or not."""
        if self.acked(message.token):
            return
        row_id = message.entries[0].id
        self._done.add(row_id)
        state = self._streams.get(message.stream)
        if state is not None and state.failures:
            if state.held and state.held[0].id == row_id:
                state.held.popleft()
            state.failures = state.suspicions = 0
            state.retry_at_s = None
            self._held += len(state.held)
            if state.missing_from is not None:
                self._head = min(self._head, state.missing_from - 1)
                state.missing_from = None
        self._advance()

    def reset(self, now_s: float, *, blameless: bool = False) -> list[tuple[Outgoing, int]]:
        """The connection is lost: nothing is on the way any more, and reading starts again behind the cursor.

        Returns the messages that are held responsible, with the refusals in a row of their streams; these
        wait as after a refusal. With `blameless` it is known that none of them is.
        """
        accused = []
        for state in () if blameless else self._flights.values():
            if len(self._flights) == 1:
                state.suspicions += 1
            if state.flight is not None and (state.failures or state.suspicions > 1):
                self._postpone(state, now_s)
                accused.append((state.flight, state.failures))
        self._flights.clear()
        self._held = 0
        for state in self._streams.values():
            state.held.clear()
            state.flight = None
            state.missing_from = None
        self._head = self._cursor
        self._tell_still()
        return accused

    def _advance(self) -> None:
        cursor = self._head
        spent = []
        for stream, state in self._streams.items():
            first = state.first_undelivered()
            if first is not None:
                cursor = min(cursor, first - 1)
            elif state.idle() and state.delivered <= self._cursor:
                spent.append(stream)
        for stream in spent:
            del self._streams[stream]
        if cursor > self._cursor:
            self._cursor = cursor
            self._done.discard_through(cursor)
