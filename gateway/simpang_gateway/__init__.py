"""The Simpang gateway: takes records from sensor nodes, keeps them durably, hands them to the city."""

__version__ = "0.1.0"

RELEASED_S = 1_795_478_400
"""2026-11-24, Unix seconds: when this release was made. A clock that shows less is wrong."""
