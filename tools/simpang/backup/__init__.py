"""A gateway's keys, registry and configuration in one encrypted file, and back from it."""
