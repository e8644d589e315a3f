"""Non-volatile storage for tests, with power cuts at its commits."""


class PowerCut(BaseException):
    """Nothing after it is executed."""


class Nvs:
    """Storage whose `cut`-th commit from now does not return; it is `done` or not."""

    def __init__(self):
        self.durable = {}
        self._live = {}
        self.cut = 0
        self.done = False
        self.refuses = False
        self.commits = 0

    def set_blob(self, key, value):
        assert len(key) <= 15
        self._live[key] = bytes(value)

    def get_blob(self, key, buffer):
        value = self._live.get(key)
        if value is None:
            raise OSError(-0x1102)
        buffer[: len(value)] = value
        return len(value)

    def erase_key(self, key):
        if key not in self._live:
            raise OSError(-0x1102)
        self._live[key] = None

    def commit(self):
        self.commits += 1
        self.cut -= 1
        if self.refuses:
            raise OSError(-0x1105)
        if self.cut != 0 or self.done:
            self.durable = {key: value for key, value in self._live.items() if value is not None}
        if self.cut == 0:
            raise PowerCut

    def restart(self):
        self._live = dict(self.durable)
        self.cut = 0
        self.done = False
