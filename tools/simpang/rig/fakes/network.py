# The part of MicroPython's `network` that ESP-NOW needs: one station interface, on a channel.
import _rig

STA_IF = 0
AP_IF = 1
LAST_CHANNEL = 13

# What `espnow` asks for, and whom it wants to be told.
active = False
channel = 1
tuned = None


class WLAN:
    IF_STA = 0
    IF_AP = 1
    PM_NONE = 0
    PM_PERFORMANCE = 1
    PM_POWERSAVE = 2

    def __init__(self, interface=0):
        if interface != 0:
            raise ValueError("the virtual board has a station interface only")

    def active(self, on=None):
        global active
        if on is not None:
            active = bool(on)
            self._changed()
        return active

    def config(self, *names, **values):
        global channel
        if names:
            if len(names) != 1 or values:
                raise TypeError("one parameter at a time")
            if names[0] == "channel":
                return channel
            if names[0] == "mac":
                return _rig.uid
            raise ValueError("unknown config param")
        for name in values:
            if name not in ("channel", "pm"):
                raise ValueError("unknown config param")
        if not active:
            raise OSError("Wifi Not Started")
        if "channel" in values:
            if not 1 <= values["channel"] <= LAST_CHANNEL:
                raise RuntimeError("Wifi Unknown Error 0x0102")
            channel = values["channel"]
            self._changed()

    def disconnect(self):
        pass

    def _changed(self):
        if tuned is not None:
            tuned()
