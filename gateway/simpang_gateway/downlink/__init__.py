"""Commands from the city: signed, allowed, remembered, carried out once. docs/downlink.md has the format.

`envelope`, `catalogue`, `tickets`, `book`, `rules` and `desk` are plain objects that take bytes and time;
`service` joins them with the uplinks, the hub and the file.
"""
