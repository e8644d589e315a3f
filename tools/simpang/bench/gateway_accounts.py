"""Whether every record of a run came, once, in order and unchanged: a benchmark that loses is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .gateway_load import Load

_COMPARED_EVERY = 7


@dataclass(frozen=True, slots=True)
class Accounts:
    """Records that did not come, came again, were never sent, hold something else, or stand out of order."""

    lost: int
    repeated: int
    strange: int
    wrong: int
    disordered: int
    compared: int

    @property
    def faults(self) -> int:
        """All that must be zero."""
        return self.lost + self.repeated + self.strange + self.wrong + self.disordered

    def to_dict(self) -> dict[str, int]:
        """For the report."""
        return {
            "lost": self.lost,
            "duplicates": self.repeated,
            "never_sent": self.strange,
            "wrong": self.wrong,
            "out_of_order": self.disordered,
            "compared_by_value": self.compared,
        }


def judge(
    found: Mapping[str, Any], load: Load, nodes: Sequence[int], epochs: Mapping[int, int], records: int
) -> Accounts:
    """Compare what the consumer counted (`found`) with `records` of each node in its epoch of the run.

    `nodes` are the ids by place. Of the messages that the consumer kept, some records are compared by value.
    """
    came = {(place["node"], place["epoch"]): place for place in found["places"]}
    lost = strange = 0
    for node in nodes:
        here = came.pop((node, epochs[node]), None)
        if here is None:
            lost += records
            continue
        lost += records - here["records"]
        strange += here["surplus"]
    strange += sum(place["records"] + place["surplus"] for place in came.values())
    places = {node: place for place, node in enumerate(nodes)}
    wrong = compared = 0
    for text in found["kept"]:
        for one in json.loads(text)["records"][::_COMPARED_EVERY]:
            compared += 1
            place = places.get(one["id"][0])
            wrong += place is None or not load.is_right(place, one)
    return Accounts(lost, found["repeated"], strange, wrong, found["disordered"], compared)
