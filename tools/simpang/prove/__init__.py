"""`simpang prove`: the promises of the protocol, tried with its own state machines in virtual time."""
