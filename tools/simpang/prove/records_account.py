"""The end of a story: every record is stored, or declared lost once, or there is a reason for neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .records_nodes import StoryNode
from .records_truth import Broken, Place, Store, Truth


def account(store: Store, truth: Truth, nodes: Mapping[int, StoryNode], restored: bool) -> None:
    """Hold a store against the truth; `restored`: it is not the store that the story began with.

    Raises Broken. What is found is counted in `truth.counts`.
    """
    for (number, epoch), end in truth.ends.items():
        lost = _lost(store, number, epoch, end)
        for seq in range(end):
            place = (number, epoch, seq)
            there, declared = place in store.rows, lost[seq]
            if declared > 1 or (there and declared):
                raise Broken(f"{place}: stored {there}, declared lost {declared} times")
            if declared:
                truth.counts[_explain(place, truth, nodes, restored)] += 1
            elif not there:
                truth.counts[_excuse(place, store, truth, nodes, restored)] += 1
    for number, epochs in store.losses.items():
        for epoch, ranges in epochs.items():
            if ranges and (number, epoch) not in truth.ends:
                raise Broken(
                    f"node {number} epoch {epoch} never had a record, and {ranges} are declared lost"
                )
    for node in nodes.values():
        truth.counts["never named: dropped before the node had an epoch"] += node.nameless
        if node.nameless > node.real.dropped:
            raise Broken(
                f"node {node.number}: {node.nameless} records without a name, {node.real.dropped} dropped"
            )
    truth.counts["stored"] += len(store.rows)


def _lost(store: Store, number: int, epoch: int, end: int) -> Counter[int]:
    lost: Counter[int] = Counter()
    for first, last, _cause in store.losses.get(number, {}).get(epoch, []):
        if last >= end:
            raise Broken(
                f"node {number} epoch {epoch} made {end} records, {first} to {last} are declared lost"
            )
        lost.update(range(first, last + 1))
    return lost


def _explain(place: Place, truth: Truth, nodes: Mapping[int, StoryNode], restored: bool) -> str:
    """Declared lost in this store: an earlier one has it, or the journal was full."""
    if place in truth.archive:
        if not restored:
            raise Broken(f"{place} was stored, and is declared lost")
        return "gaps: in an earlier store"
    if not nodes[place[0]].real.dropped:
        raise Broken(f"{place} is declared lost, and its node dropped nothing")
    return "gaps: dropped by the journal"


def _excuse(place: Place, store: Store, truth: Truth, nodes: Mapping[int, StoryNode], restored: bool) -> str:
    """Neither stored nor declared: only what an earlier store settled and nobody speaks of any more."""
    if place not in truth.archive and place not in truth.declared:
        raise Broken(f"{place} is lost and not declared")
    if not restored:
        raise Broken(f"{place} is gone from its store")
    number, epoch, _ = place
    if any(segment.epoch == epoch for segment in nodes[number].real._segments):
        raise Broken(f"{place} is not here, its node still has the epoch, and nothing is declared")
    if epoch in store.windows.get(number, {}):
        return "after a restore, not here: the node has forgotten the epoch"
    return "after a restore, not here: the store never heard of the epoch"
