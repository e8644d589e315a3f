"""The keys of one generation, ready for use."""

from .ccm import Ccm


class KeySet:
    """`keys` holds `up`, `down` (16 bytes each), `hello` (32), and for LoRa `up4` (16)."""

    def __init__(self, generation: int, keys: "dict[str, bytes]") -> None:
        self.generation = generation
        self.up = Ccm(keys["up"])
        self.down = Ccm(keys["down"])
        self.hello = keys["hello"]
        self._up4 = keys.get("up4")

    def uplink(self, mic: int) -> Ccm:
        """Return what seals the uplink of a line whose MIC has `mic` bytes, 8 or 4. Raises KeyError where
        the key for 4 is missing."""
        if mic == 8:
            return self.up
        if self._up4 is None:
            raise KeyError("up4")
        return Ccm(self._up4, 4)
