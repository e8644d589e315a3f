"""Virtual rig: nodes that run the real firmware on the MicroPython VM, with the world around them played on
the host.
"""

from simpang.rig.capture import Capture, Captured, read_capture
from simpang.rig.errors import RigError
from simpang.rig.node import VirtualNode
from simpang.rig.wire import DropFrames, FlipBit, Wire
from simpang.rig.world import Air, CityAir

__all__ = [
    "Air",
    "Capture",
    "Captured",
    "CityAir",
    "DropFrames",
    "FlipBit",
    "RigError",
    "VirtualNode",
    "Wire",
    "read_capture",
]
