"""The accounts of a run, record by record: what was created, stored, freed, held."""

from dataclasses import dataclass, field

RECORD_SIZE = 66
# A schema that no gateway knows: it is stored and acknowledged as every other.
_SCHEMA = 0xC8
_HEAD = 9


def make_record(node: int, number: int, seq: int, size: int = RECORD_SIZE) -> bytes:
    """Return the `number`-th record of a node; two different ones differ in more than their seq."""
    head = bytes((_SCHEMA, seq & 255, seq >> 8, 2 << 6)) + (number & 0xFFFFFFFF).to_bytes(4, "little") + b"\0"
    body = node.to_bytes(2, "little") + number.to_bytes(4, "little")
    return head + (body * (size // len(body)))[: size - _HEAD]


def number_of(record: bytes) -> tuple[int, int]:
    """Return node and number of a record that `make_record` made."""
    return int.from_bytes(record[_HEAD : _HEAD + 2], "little"), int.from_bytes(
        record[_HEAD + 2 : _HEAD + 6], "little"
    )


@dataclass
class NodeAccount:
    """One node's records by number: the moment of their creation, and of their commit (-1: not yet), us."""

    created_us: list[int] = field(default_factory=list)
    stored_us: list[int] = field(default_factory=list)
    freed: set[int] = field(default_factory=set)


class Accounts:
    """What became of every record of every node."""

    def __init__(self, nodes: range) -> None:
        self.nodes = {node: NodeAccount() for node in nodes}
        self.stored = 0
        self.stored_bytes = 0
        self.last_stored_us = 0
        self._identities: set[tuple[int, int, int]] = set()
        # What must not happen
        self.duplicates = 0
        self.freed_before_commit = 0
        self.foreign = 0

    def create(self, node: int, now_us: int) -> int:
        """Open the account of a node's next record; return its number."""
        account = self.nodes[node]
        account.created_us.append(now_us)
        account.stored_us.append(-1)
        return len(account.created_us) - 1

    def store(self, node: int, epoch: int, seq: int, record: bytes, now_us: int) -> None:
        """A record became durable in the gateway's store."""
        identity = (node, epoch, seq)
        owner, number = number_of(record)
        account = self.nodes[node]
        known = owner == node and number < len(account.created_us)
        if not known or record != make_record(node, number, seq, len(record)):
            self.foreign += 1
        elif identity in self._identities or account.stored_us[number] >= 0:
            self.duplicates += 1
        else:
            account.stored_us[number] = now_us
            self.stored += 1
            self.stored_bytes += len(record)
            self.last_stored_us = now_us
        self._identities.add(identity)

    def free(self, node: int, record: bytes) -> None:
        """The node forgets a record, because it was told that the gateway has it."""
        account = self.nodes[node]
        number = number_of(record)[1]
        if account.stored_us[number] < 0:
            self.freed_before_commit += 1
        account.freed.add(number)

    @property
    def created(self) -> int:
        """Records of all nodes."""
        return sum(len(account.created_us) for account in self.nodes.values())

    def lost(self, held: dict[int, set[int]]) -> int:
        """Records that are neither in the store nor among the numbers that their node still holds."""
        return sum(
            stored_us < 0 and number not in held[node]
            for node, account in self.nodes.items()
            for number, stored_us in enumerate(account.stored_us)
        )

    def balances(self, held: dict[int, set[int]]) -> bool:
        """True where each record is freed or held, never both, and what is freed is in the store."""
        return not (self.duplicates or self.freed_before_commit or self.foreign) and all(
            account.freed.isdisjoint(held[node])
            and len(account.freed) + len(held[node]) == len(account.created_us)
            for node, account in self.nodes.items()
        )

    def latencies_s(self, first: int = 0) -> list[float]:
        """Return the seconds from creation to commit of every node's stored records from number `first` on,
        lowest first."""
        return sorted(
            (stored_us - created_us) / 1e6
            for account in self.nodes.values()
            for created_us, stored_us in zip(
                account.created_us[first:], account.stored_us[first:], strict=True
            )
            if stored_us >= 0
        )
