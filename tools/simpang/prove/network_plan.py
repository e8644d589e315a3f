"""What happens in each scenario of `prove network`: drawn from a seed, before anything runs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from simpang.rig.faults import DEAD, OF_PACKETS, Fault, Kind

Transport = Literal["plain", "tls", "tls_at_broker"]
"""plain: MQTT through the proxy; tls: the proxy is the end of TLS; tls_at_broker: TLS through the proxy."""

CONNACK_REASONS = (0x80, 0x86, 0x87, 0x88, 0x89, 0x97, 0x9F)
PUBACK_REASONS = (0x80, 0x87, 0x97, 0x99)

_PROXY_FAULTS: dict[str, Kind] = {
    "refused": "refused",
    "reset": "reset",
    "silent": "silent",
    "half_open": "half_open",
    "half_open_up": "half_open",
    "half_open_down": "half_open",
    "vanished": "vanished",
    "slow": "slow",
    "close_after_connack": "close_after_connack",
    "connack_refused": "connack_refused",
    "puback_never": "puback_never",
    "puback_refused": "puback_refused",
    "puback_twice": "puback_twice",
    "garbage": "garbage",
}
SERVER_CERTIFICATES = (
    "server_cert_expired",
    "server_cert_not_yet",
    "server_cert_unknown",
    "server_cert_name",
)
OWN_CERTIFICATES = ("own_cert_expired", "own_cert_unknown")
CERTIFICATES = (*SERVER_CERTIFICATES, *OWN_CERTIFICATES)
NAMES = (
    *_PROXY_FAULTS,
    "broker_restart",
    "broker_killed",
    "broker_forgets",
    "taken_over",
    *CERTIFICATES,
    "wrong_clock",
    "dns",
    "dns_hangs",
)
"""Every fault by the name under which it is counted."""

# Where the fault needs a hand inside the gateway: its clock, its name lookup.
_INSIDE = frozenset({"wrong_clock", "dns", "dns_hangs"})
# The broker's acknowledgement is worth nothing, or not everything, then.
_FORGETFUL = frozenset({"broker_forgets", "broker_killed"})
_PROCESS_EVERY = 8


@dataclass(frozen=True, slots=True)
class Spell:
    """One fault for a while.

    `fault` is the proxy's part, if any; `seconds` how long, unless the link is dead: then until the gateway
    has found out. `quiet`: no record is made from a while before. `settled`: the gateway delivers before it
    begins. `count` is how often another client takes the id.
    """

    name: str
    fault: Fault | None = None
    seconds: float = 0.0
    quiet: bool = False
    settled: bool = True
    count: int = 1

    @property
    def dead(self) -> bool:
        """Whether a connection that is open is good for nothing."""
        return self.fault is not None and self.fault.kind in DEAD


@dataclass(frozen=True, slots=True)
class Plan:
    """One scenario. `process`: the gateway is a process of its own; else it runs in this one.

    `backlog` records are there when the net comes; `per_s` are made later. `consumer_confirms`: a record is
    delivered when the consumer says that it has it, not when the broker does.
    """

    number: int
    seed: int
    transport: Transport
    process: bool
    consumer_confirms: bool
    backlog: int
    per_s: float
    spells: tuple[Spell, ...]

    @property
    def forgetful(self) -> bool:
        """Whether the broker keeps nothing over a restart."""
        return any(spell.name == "broker_forgets" for spell in self.spells)

    @property
    def ordered(self) -> bool:
        """Whether first arrivals keep the order: not where a broker drops what it has acknowledged."""
        return not any(spell.name in _FORGETFUL for spell in self.spells)


def draw(seed: int, number: int) -> Plan:
    """The scenario of that number; each fault is the first one of every so many scenarios."""
    rng = random.Random(f"network {seed} {number}")
    first = NAMES[number % len(NAMES)]
    process = number % _PROCESS_EVERY == _PROCESS_EVERY - 1 and first not in _INSIDE
    transports: list[Transport] = [t for t in ("plain", "tls", "tls_at_broker") if _fits(first, t, process)]
    transport = rng.choice(transports)
    others = [name for name in NAMES if name != first and _fits(name, transport, process)]
    names = [first, *rng.sample(others, rng.choice((1, 1, 2)))]
    rng.shuffle(names)
    return Plan(
        number,
        rng.getrandbits(30),
        transport,
        process,
        consumer_confirms=bool(_FORGETFUL.intersection(names)) or rng.random() < 0.2,
        backlog=rng.choice((0, 20, 60)),
        per_s=rng.choice((3.0, 6.0, 10.0)),
        spells=tuple(_spell(name, rng) for name in names),
    )


def _fits(name: str, transport: Transport, process: bool) -> bool:
    if process and name in _INSIDE:
        return False
    if name in CERTIFICATES:
        return transport != "plain"
    return not (transport == "tls_at_broker" and _PROXY_FAULTS.get(name) in OF_PACKETS)


def _spell(name: str, rng: random.Random) -> Spell:
    seconds = rng.uniform(2.0, 7.0)
    fault = _fault(name, rng) if name in _PROXY_FAULTS else None
    return Spell(
        name,
        fault,
        seconds=seconds + 4.0 if name == "slow" else seconds,
        # Without messages nothing would be acknowledged, or not.
        quiet=rng.random() < 0.3 and not name.startswith("puback"),
        settled=rng.random() < 0.7,
        count=rng.randint(1, 3),
    )


def _fault(name: str, rng: random.Random) -> Fault:
    kind = _PROXY_FAULTS[name]
    if kind == "half_open":
        return Fault(kind, up=name != "half_open_down", down=name != "half_open_up")
    if kind == "slow":
        return Fault(kind, rate=rng.choice((500.0, 1000.0, 4000.0)), delay_s=rng.uniform(0.1, 0.6))
    if kind == "connack_refused":
        return Fault(kind, reasons=CONNACK_REASONS)
    if kind == "puback_refused":
        return Fault(kind, reasons=PUBACK_REASONS, share=rng.choice((0.3, 1.0)))
    if kind == "puback_never":
        return Fault(kind, swallow=rng.random() < 0.5, share=rng.choice((0.3, 1.0)))
    if kind == "close_after_connack":
        return Fault(kind, hard=0.5, delay_s=0.01)
    return Fault(kind)
