"""No command is carried out twice, whatever comes twice, is lost, or is cut off: hypothesis makes up stories.

The file holds what was written last, and a crash goes back to it. What must be written before it has an
effect is written here as `Downlink` writes it; everything else may be lost.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from simpang_gateway.downlink import book as books
from simpang_gateway.downlink.book import MEMORY, NODE_QUEUE, Book
from simpang_gateway.downlink.tickets import SENT
from simpang_protocol import codes
from tests.gateway.downlink.kit import START_S, City, order

DAY_MS = 86_400_000
SHOWN = 1


class Story(RuleBasedStateMachine):
    """One gateway, its file, and nodes that carry out a number once."""

    envelopes = Bundle("envelopes")

    def __init__(self) -> None:
        super().__init__()
        # So that much is forgotten.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(books, "SHOWN", SHOWN)
        self.city = City(per_minute=6000)
        self.file = self.city.desk.book.dump()
        self.given = 0
        self.numbers = 0  # the registry's, which never goes back
        self.obeyed: dict[int, int] = {}  # the highest number that each node has carried out
        self.done: Counter[str] = Counter()
        self.answers: list[tuple[int, int]] = []

    def teardown(self) -> None:
        self.patch.undo()

    @rule(
        target=envelopes,
        node=st.sampled_from([1, 2, None]),
        valid_s=st.sampled_from([5, 60, 3600]),
        fresh=st.booleans(),
    )
    def sign(self, node: int | None, valid_s: int, fresh: bool) -> bytes:
        now = START_S + self.city.clock.monotonic_ms() // 1000
        self.given += fresh or not self.given
        command = "gateway.status" if node is None else "node.health"
        made = order(f"c{self.given}", command, node=node, issued=now, expires=now + valid_s)
        return self.city.signer.sign(made)

    @rule(data=envelopes)
    def comes(self, data: bytes) -> None:
        desk = self.city.desk
        desk.tidy(self.city.now)
        taken = desk.take(data, "city", self.city.now)
        if taken.accepted:
            assert taken.ticket is not None
            if taken.ticket.node is not None:
                self.numbers += 1
                taken.ticket.number = self.numbers
            self.file = desk.book.dump()

    @rule()
    def works(self) -> None:
        desk = self.city.desk
        desk.tidy(self.city.now)
        for ticket in desk.ready(self.city.now):
            if ticket.node is None:
                desk.begun(ticket, self.city.now)
                self.file = desk.book.dump()
                self.done[ticket.id] += 1
            else:
                assert ticket.number is not None
                desk.sent(ticket.node, ticket.number, self.city.now)
                if ticket.number > self.obeyed.get(ticket.node, 0):
                    self.obeyed[ticket.node] = ticket.number
                    self.done[ticket.id] += 1
                self.answers.append((ticket.node, ticket.number))

    @rule(lost=st.booleans())
    def answers_come(self, lost: bool) -> None:
        for node, number in self.answers:
            if not lost:
                self.city.desk.result(node, number, codes.DONE, "", self.city.now)
        self.answers = []
        for ticket in self.city.desk.book.tickets.values():
            if ticket.node is None and ticket.state == SENT:
                self.city.desk.done(ticket, {}, self.city.now)

    @rule()
    def is_written(self) -> None:
        self.file = self.city.desk.book.dump()

    @rule(reboot=st.booleans())
    def crashes(self, reboot: bool) -> None:
        if reboot:
            self.city.clock.reboot()
        self.city.desk = self.city.open(Book.load(self.file))

    @rule(ms=st.sampled_from([1, 1000, 5000, 60_000, DAY_MS, 2 * DAY_MS]))
    def time_passes(self, ms: int) -> None:
        self.city.clock.advance(ms)

    @rule(ms=st.sampled_from([-1000, 1000, -60_000, 60_000, -DAY_MS, DAY_MS, -1500 * DAY_MS, 1500 * DAY_MS]))
    def clock_steps(self, ms: int) -> None:
        self.city.clock.step_wall(ms)

    @rule()
    def clock_is_right(self) -> None:
        self.city.clock.step_wall(START_S * 1000 + self.city.clock.monotonic_ms() - self.city.clock.wall_ms())

    @rule(synced=st.booleans())
    def clock_is_known(self, synced: bool) -> None:
        self.city.clock.set_synced(synced)

    @invariant()
    def nothing_was_done_twice(self) -> None:
        assert not [id for id, count in self.done.items() if count > 1]

    @invariant()
    def everything_is_bounded(self) -> None:
        assert len(self.city.desk.book.tickets) <= MEMORY + SHOWN
        for node in (1, 2, None):
            assert len(self.city.desk.book.line(node)) <= NODE_QUEUE


TestStory = Story.TestCase
TestStory.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
