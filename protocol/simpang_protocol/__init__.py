"""The Simpang wire protocol, version 1: frames, records, keys and windows, without any I/O.

One source for CPython 3.11+ and MicroPython 1.29. Import the submodule that is needed, so that a node
loads only what it runs. The specification is SPEC.md beside this package.
"""

VERSION = 1
# Times on the wire count seconds from 2020-01-01T00:00:00Z; this is that moment in Unix seconds.
UNIX_2020 = 1577836800
