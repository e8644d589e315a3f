"""The Simpang gateway: takes records from sensor nodes, keeps them durably, hands them to the city."""

__version__ = "0.1.0"
