"""The epoch in non-volatile storage: written, and read back, before anything is sent under it."""

from simpang_protocol.frame import LAST_EPOCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from esp32 import NVS

_KEY = "epoch"


class Epochs:
    """Keeps the epoch in the NVS namespace that is handed in; `least` is the lowest one that nothing on this
    node has used."""

    def __init__(self, nvs: "NVS", least: int) -> None:
        self._nvs = nvs
        self.least = least

    def load(self) -> "int | None":
        """Return the epoch of the last boot, or None where none is stored: new, erased or damaged."""
        try:
            epoch = self._nvs.get_i32(_KEY)
        except OSError:
            return None
        return epoch if 0 < epoch <= LAST_EPOCH else None

    def save(self, epoch: int) -> None:
        """Store an epoch durably. Raises OSError where it is above the last one or cannot be read back."""
        if epoch > LAST_EPOCH:
            raise OSError("the epochs of this node id are used up: flash the node with a new id")
        self._nvs.set_i32(_KEY, epoch)
        self._nvs.commit()
        if self._nvs.get_i32(_KEY) != epoch:
            raise OSError("epoch %d was not stored: the NVS partition is damaged" % epoch)
        self.least = max(self.least, epoch)
