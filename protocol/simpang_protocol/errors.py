"""The exceptions of the protocol; every one has one meaning."""


class ProtocolError(ValueError):
    """Bytes that do not follow the protocol. `cause` is a short stable word used in counters."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause + (": " + detail if detail else ""))
        self.cause = cause


class CodecError(ProtocolError):
    """A record body that is not a valid column encoding, or values that cannot be encoded."""


class RecordError(ProtocolError):
    """A record whose fixed part is damaged, or whose content does not fit into one record."""


class UnknownSchema(ProtocolError):
    """A record of a schema that this version does not know: keep it raw, acknowledge it, set it aside."""

    def __init__(self, schema: int) -> None:
        super().__init__("unknown_schema", str(schema))
        self.schema = schema


class FrameError(ProtocolError):
    """A frame that must be dropped; `cause` names the counter."""
