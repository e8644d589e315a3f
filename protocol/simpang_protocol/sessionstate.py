"""What the gateway's end of a conversation keeps, and what it asks to be stored."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOSS_FLOOR = "floor"
LOSS_BEFORE_STORE = "before_store"

_LAST_DOWN_COUNTER = 0xFEFF


class Downlink:
    """A node's run and downlink counter in this gateway process. It outlives every roll back: no (key, nonce)
    pair may repeat. `draw_run()` returns 7 unpredictable bytes."""

    def __init__(self, draw_run: "Callable[[], bytes]") -> None:
        self._draw_run = draw_run
        self._counter = 0
        self.run = draw_run()
        # True once a HELLO was answered in this run: the node can open what is sealed with it.
        self.greeted = False

    def renew(self) -> None:
        """Begin another run: it must, where the gateway may know less than it told the node, because within a
        run a node relies on the bases that it was given."""
        self.run = self._draw_run()
        self._counter = 0
        self.greeted = False

    def next_counter(self) -> int:
        """Return a counter that was never used in this run; begins a new run before they end."""
        if self._counter >= _LAST_DOWN_COUNTER:
            self.renew()
        self._counter += 1
        return self._counter - 1


class WindowState:
    """One epoch as it is stored. `counter` is the highest frame counter accepted, -1 none;
    `up_offset_ms` is the lowest (gateway's boot time - node's uptime) heard, or None."""

    def __init__(
        self, epoch: int, base: int = 0, bits: int = 0, counter: int = -1, up_offset_ms: "int | None" = None
    ) -> None:
        self.epoch = epoch
        self.base = base
        self.bits = bits
        self.counter = counter
        self.up_offset_ms = up_offset_ms

    def copy(self) -> "WindowState":
        """Return an independent copy."""
        return WindowState(self.epoch, self.base, self.bits, self.counter, self.up_offset_ms)


class AcceptedRecord:
    """A record that is new: identity (epoch, seq), schema number and the record without epoch."""

    def __init__(self, epoch: int, seq: int, schema: int, body: bytes) -> None:
        self.epoch = epoch
        self.seq = seq
        self.schema = schema
        self.body = body


class Changes:
    """What one frame changed; all of it belongs in one commit."""

    def __init__(self) -> None:
        self.records: list[AcceptedRecord] = []
        self.windows: dict[int, WindowState] = {}
        # (epoch, first, last, cause)
        self.lost: list[tuple[int, int, int, str]] = []
        # (epoch, seq) of records that arrived after they had been given up
        self.regained: list[tuple[int, int]] = []
        # (command id, outcome, text) of the results among the records
        self.results: list[tuple[int, int, str]] = []
        # (command id, part, number and result, text) of the findings of a self-test among the records
        self.findings: list[tuple[int, int, str]] = []
        # A frame to send once all this is committed.
        self.then_send: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self.records or self.windows or self.lost or self.regained)


class Received:
    """What a frame brought: `cause` says why it was refused (None: accepted), `reply` is a frame to send at
    once, `notes` counts by cause what inside an accepted frame was not taken, `wanted` are epochs whose
    windows must be read back from the store, `update_status` is the plaintext of such a frame."""

    def __init__(self) -> None:
        self.cause: str | None = None
        self.reply: bytes | None = None
        self.changes = Changes()
        self.notes: dict[str, int] = {}
        self.sealed = False
        self.wanted: list[int] = []
        self.update_status: bytes | None = None

    def note(self, cause: str) -> None:
        """Count one thing by cause."""
        self.notes[cause] = self.notes.get(cause, 0) + 1
