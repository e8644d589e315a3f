"""What a broker does not take: who is told, what waits, and what is given up after bounded tries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .mqtt import Loss
from .packets import TOO_LARGE
from .pipeline import Outgoing
from .place import Place
from .retained import Retained
from .seams import Counters, Emit
from .session import Session
from .sizes import MessageSize, Poison
from .subscriptions import Subscriptions
from .troubles import REFUSALS, Troubles, refusal

_ENDS = "the connection ends when it is sent"
_ENDS_ASKED = "the connection ends when it is asked for"


class Blame:
    """Judges refusals and lost connections of one uplink.

    `topic` gives the topic of a stream. While `alone` a record that never fits is set aside in the store,
    else this uplink passes it over. `passed` is called when one was given up.
    """

    def __init__(
        self,
        uplink: str,
        topic: Callable[[int, int], str],
        place: Place,
        retained: Retained,
        subscriptions: Subscriptions,
        sizes: MessageSize,
        counters: Counters,
        troubles: Troubles,
        emit: Emit,
        passed: Callable[[], None],
        *,
        alone: Callable[[], bool],
    ) -> None:
        self._uplink = uplink
        self._topic = topic
        self._place = place
        self._retained = retained
        self._subscriptions = subscriptions
        self._sizes = sizes
        self._counters = counters
        self._troubles = troubles
        self._emit = emit
        self._passed = passed
        self._alone = alone
        self._tasks: set[asyncio.Task[None]] = set()
        self.poison = Poison()

    def refused(self, topic: str, reason: str, first: bool, code: int | None = None) -> None:
        """The broker refused a message; an event only for the `first` time in a row."""
        self._troubles.refused(refusal(code), topic, reason, tell=first)

    def subscribed(self, refused: Sequence[tuple[str, str]]) -> None:
        """The broker answered subscriptions: topic and reason of those that it refused."""
        for topic, reason in refused[:1]:
            self._troubles.refused("uplink.refused_subscription", topic, reason, tell=True)
        if not self._subscriptions.refused:
            self._troubles.clear("uplink.refused_subscription")

    def poisoned(self, message: Outgoing, reason: str) -> None:
        """A single record was too large often enough."""
        task = asyncio.create_task(self._give_up(message, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def clear(self) -> None:
        """The alarms end where nothing is refused any more."""
        pipeline = self._place.pipeline
        refusals = pipeline is not None and pipeline.refused_streams > 0
        if not refusals and not self._retained.any_refused:
            for code in REFUSALS:
                self._troubles.clear(code)

    def ended(self, session: Session, loss: Loss | None, now_s: float) -> None:
        """A connection has ended: some brokers refuse like that, and some say why."""
        code = None if loss is None else loss.reason_code
        if loss is not None and (size := session.largest_sent):
            (self._sizes.refused if code == TOO_LARGE else self._sizes.ended)(size, now_s)
        assert self._place.pipeline is not None
        for message, failures in self._place.pipeline.reset(now_s, blameless=session.refused_last):
            self._accuse(message, failures == 1, loss)
        if session.suspect is not None and self._retained.lost_alone(session.suspect):
            self._counters.refused += 1
            self.refused(session.suspect, _ENDS, True)
        if session.asking and self._subscriptions.lost_when_asked():
            self.subscribed([(topic, _ENDS_ASKED) for topic in self._subscriptions.refused])

    async def close(self) -> None:
        """Wait for what is being given up."""
        await asyncio.gather(*self._tasks)

    def _accuse(self, message: Outgoing, first: bool, loss: Loss | None) -> None:
        """The connection ended twice while this message alone was on the way; without `loss` by a timeout."""
        self._counters.refused += 1
        said = loss is not None and loss.reason_code == TOO_LARGE
        large = said or (loss is not None and message.size > self._sizes.largest)
        single = len(message.entries) == 1
        taken = None if said else self._counters.delivered
        if large and single and self.poison.tried(message.entries[0].id, taken):
            self.poisoned(message, _ENDS)
        else:
            self.refused(self._topic(*message.stream), _ENDS, first, TOO_LARGE if large else None)

    async def _give_up(self, message: Outgoing, reason: str) -> None:
        if not await self._place.give_up(message, reason, aside=self._alone()):
            return  # it is tried again, and given up again
        self._counters.aside += 1
        row_id, node = message.entries[0].id, message.stream[0]
        self._emit("uplink.aside", uplink=self._uplink, row=row_id, node=node, reason=reason)
        self.clear()
        self._passed()
