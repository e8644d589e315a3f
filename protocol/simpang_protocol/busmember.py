"""A node on an RS-485 bus as the gateway sees it: its place in the schedule, its pace, its figures."""

FIRST_PAUSE_MS = 1000


class Member:
    """One node: its place in the schedule and its figures."""

    def __init__(self, node: int, now_ms: int) -> None:
        self.node = node
        self.due_ms = now_ms
        # The time when a commit was found pending, None where none is.
        self.waits_ms: int | None = None
        # Its last burst held records: there may be more, and these are to be acknowledged.
        self.busy = False
        # The burst was long: it has a backlog.
        self.deep = False
        self.replies: list[bytes] = []
        self.heard_ms = now_ms
        self.answers = 0
        self.missed = 0
        self.missed_polls = 0
        self.absent = False
        self.pause_ms = FIRST_PAUSE_MS
        # When the last poll had left, where it was not answered in its time.
        self.open_ms: int | None = None
        # Response time in eighths of a ms, and its mean deviation in quarters.
        self.response8: int | None = None
        self.deviation4 = 0
        self.polls = 0
        self.solicits = 0
        self.unanswered = 0
        self.late = 0

    def learn(self, took_ms: int) -> None:
        """Note a response time."""
        if self.response8 is None:
            self.response8 = took_ms * 8
            self.deviation4 = took_ms * 2
            return
        off = took_ms - self.response8 // 8
        self.response8 += off
        self.deviation4 += abs(off) - self.deviation4 // 4

    def heard(self, now_ms: int) -> None:
        """Note that the node spoke."""
        self.heard_ms = now_ms
        self.answers += 1
        self.missed = 0
        self.missed_polls = 0
        self.absent = False
        self.pause_ms = FIRST_PAUSE_MS

    def figures(self, now_ms: int, timeout_ms: int) -> "dict[str, int | bool | None]":
        """Return what `PollBus.figures` says of this node."""
        return {
            "node": self.node,
            "polls": self.polls,
            "solicits": self.solicits,
            "unanswered": self.unanswered,
            "late": self.late,
            "response_ms": None if self.response8 is None else self.response8 // 8,
            "timeout_ms": timeout_ms,
            "silent_ms": now_ms - self.heard_ms,
            "answers": self.answers,
            "absent": self.absent,
        }
