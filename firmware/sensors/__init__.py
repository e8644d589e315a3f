"""Drivers of the sensors that a node can carry, one file a device; `registry` names them."""
