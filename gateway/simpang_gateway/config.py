"""The gateway's configuration: one TOML file, validated; docs/gateway-configuration.md explains every key.

This is the only module that imports pydantic, and in a gateway process it does not either: see `tables`.
Everything it returns is frozen.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from . import tables
from .downlink.catalogue import CATALOGUE, HARMLESS
from .downlink.ed25519 import read_public
from .errors import SimpangError
from .files import describe

if not TYPE_CHECKING and tables.elsewhere():
    from .tables import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        ValidationError,
        ValidationInfo,
        model_validator,
    )
else:
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        ValidationError,
        ValidationInfo,
        model_validator,
    )

_NAME = r"^[a-z0-9][a-z0-9-]{0,31}$"
# MQTT 5, section 4.7: no wildcards, no empty level at an end; names with $ belong to the broker.
_TOPIC = r"^[^+#$/\s][^+#/\s]*(/[^+#/\s]+)*$"
_WORD = r"^\S{1,255}$"
_FOUND_LIMIT = 60


def _to_path(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not value:
        return value
    base = info.context if isinstance(info.context, Path) else Path()
    return base / value


# An empty path stays a text, which strict validation refuses. The examples are what an error shows.
_File = Annotated[Path, BeforeValidator(_to_path), Field(examples=['"folder/file"'])]
_Name = Annotated[str, Field(pattern=_NAME, examples=['"semarang-1" (a-z 0-9 -, 1..32)'])]
_Text = Annotated[str, Field(min_length=1, max_length=255, examples=['"gateway-1" (1..255)'])]
_Url = Annotated[str, Field(pattern=_WORD, examples=['"/dev/ttyUSB0"'])]
_Host = Annotated[str, Field(pattern=_WORD, examples=['"broker.example.org"'])]
_Group = Annotated[str, Field(pattern=_WORD, examples=['"simpang"'])]
_Topic = Annotated[str, Field(pattern=_TOPIC, max_length=255, examples=['"city/simpang"'])]
_NodeId = Annotated[int, Field(ge=1, le=0xFFFE)]
_LOOPBACK = r"^(127(\.[0-9]{1,3}){3}|\[::1\]):[0-9]{1,5}$"
_Listen = Annotated[str, Field(pattern=_LOOPBACK, examples=['"127.0.0.1:9464" (127.* or [::1] only)'])]
_ClientId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{0,128}$", examples=['"simpang-1" (ASCII, 0..128)'])]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Gateway(_Table):
    """[gateway]: who this gateway is. `state` is the folder of everything it keeps."""

    site: _Name
    name: _Name
    state: _File


class ClockTrust(_Table):
    """[clock]: when the host's clock is believed."""

    trust: Literal["kernel", "always"] = "kernel"


class Store(_Table):
    """[store]: group commits (whichever comes first) and the quota of store.db.

    `commit_ms` "auto": the window follows `card_mb_per_day`.
    """

    commit_ms: Literal["auto"] | Annotated[int, Field(ge=5, le=500)] = "auto"
    commit_rows: Annotated[int, Field(ge=1, le=10_000)] = 512
    card_mb_per_day: Annotated[int, Field(ge=64, le=1_048_576)] = 2048
    max_mb: Annotated[int, Field(ge=16, le=1_048_576)] = 1024


class Limits(_Table):
    """[limits]: what one node may do that holds a valid key, stolen or not."""

    node_frames_per_s: Annotated[int, Field(ge=10, le=100_000)] = 1000
    node_bytes_per_s: Annotated[int, Field(ge=1000, le=10_000_000)] = 131_072
    node_disk_percent: Annotated[int, Field(ge=1, le=100)] = 25


DIRECT, RS485, BRIDGE = "direct", "rs485", "bridge"
BAUD = {DIRECT: 115_200, RS485: 115_200, BRIDGE: 921_600}
"""What a port of each kind has where its table names no speed."""

# Only a bus with several nodes on one pair of wires has these.
_BUS_KEYS = ("nodes", "answer_ms", "answer_min_ms", "gap_ms", "turn_ms", "cycle_ms")
_KEYS_OF_KIND = {RS485: _BUS_KEYS, BRIDGE: ("channel",)}


class Port(_Table):
    """One [[port]]: a line to nodes; `url` is a device path or any pyserial URL.

    `nodes` and the times belong to kind "rs485" alone; `nodes` None: every node that is heard nowhere else;
    `gap_ms` None: what suits the speed.
    `channel` belongs to kind "bridge" alone; 0: the one that the bridge has.
    """

    name: _Name
    url: _Url
    kind: Literal["direct", "rs485", "bridge"] = "direct"
    baud: Annotated[int, Field(ge=1200, le=4_000_000)] = BAUD[DIRECT]
    nodes: Annotated[list[_NodeId], Field(min_length=1, max_length=250, examples=["[1, 2, 3]"])] | None = None
    answer_ms: Annotated[int, Field(ge=5, le=1000)] = 60
    answer_min_ms: Annotated[int, Field(ge=5, le=1000)] = 15
    gap_ms: Annotated[int, Field(ge=2, le=1000)] | None = None
    turn_ms: Annotated[int, Field(ge=0, le=100)] = 2
    cycle_ms: Annotated[int, Field(ge=5, le=10_000)] = 100
    channel: Annotated[int, Field(ge=0, le=13)] = 0

    @model_validator(mode="before")
    @classmethod
    def _usual_baud(cls, data: object) -> object:
        if isinstance(data, dict) and "baud" not in data and data.get("kind") == BRIDGE:
            return {**data, "baud": BAUD[BRIDGE]}
        return data


_TLS_PORT = 8883
# Every one of them asks for TLS.
_TLS_KEYS = ("ca_file", "cert_file", "key_file", "server_name")


class Uplink(_Table):
    """One [[uplink]]: a broker. `load` fills `client_id`; a password needs a user name.

    `tls` is on where one of the files or `server_name` is given; `port` is 8883 with it.
    """

    name: _Name
    host: _Host
    port: Annotated[int, Field(ge=1, le=65_535)] = 1883
    tls: Annotated[bool, Field(examples=["true | false"])] = False
    ca_file: _File | None = None
    cert_file: _File | None = None
    key_file: _File | None = None
    server_name: _Host | None = None
    prefix: _Topic = "simpang"
    username: _Text | None = None
    password_file: _File | None = None
    client_id: _ClientId = ""
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 14
    publish_timeout_s: Annotated[int, Field(ge=1, le=300)] = 7
    inflight: Annotated[int, Field(ge=1, le=1000)] = 20
    pack: Annotated[int, Field(ge=1, le=1000)] = 200
    message_max_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = 131_072
    expiry_s: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 0
    confirm: Literal["broker", "consumer"] = "broker"
    backoff_max_s: Annotated[int, Field(ge=0, le=3600)] = 60
    connects_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 10

    @model_validator(mode="before")
    @classmethod
    def _usual_tls(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        usual: dict[str, object] = {"tls": any(key in data for key in _TLS_KEYS)}
        if (usual | data)["tls"] is True:
            usual["port"] = _TLS_PORT
        return usual | data


class Control(_Table):
    """[control]: where other programs reach the running gateway. See `GatewayConfig.control_socket`."""

    socket: _File | None = None
    group: _Group | None = None


class Capture(_Table):
    """[capture]: a file for every byte of all ports, or None."""

    path: _File | None = None


class Log(_Table):
    """[log]: the file of the event stream, or None for standard error."""

    path: _File | None = None


def _to_command(value: str) -> str:
    if value not in CATALOGUE:
        raise ValueError("no such command")
    return value


def _to_public(value: str) -> str:
    read_public(value)
    return value


_COMMAND_NAMES = "[" + ", ".join(f'"{name}"' for name in CATALOGUE) + "]"
_Commands = Annotated[
    list[Annotated[str, AfterValidator(_to_command)]], Field(max_length=64, examples=[_COMMAND_NAMES])
]
_Public = Annotated[
    str, AfterValidator(_to_public), Field(examples=['"..." (`simpang command keygen`, base64, 32 bytes)'])
]


class Commands(_Table):
    """[commands]: what may be asked for over MQTT at all, and how; times in seconds."""

    allow: _Commands = list(HARMLESS)
    max_span_s: Annotated[int, Field(ge=10, le=604_800)] = 86_400
    ahead_s: Annotated[int, Field(ge=0, le=3600)] = 60
    per_minute: Annotated[int, Field(ge=1, le=6000)] = 30


class CommandKey(_Table):
    """One [[command_key]]: who may sign commands; `nodes` None: for every node."""

    name: _Name
    public: _Public
    allow: _Commands
    nodes: Annotated[list[_NodeId], Field(max_length=1000, examples=["[1, 2, 3]"])] | None = None


class Metrics(_Table):
    """[metrics]: the loopback address of /metrics and /health, or None."""

    listen: _Listen | None = None


class GatewayConfig(_Table):
    """A whole configuration; every path in it is absolute."""

    gateway: Gateway
    clock: ClockTrust = ClockTrust()
    store: Store = Store()
    limits: Limits = Limits()
    ports: Annotated[list[Port], Field(alias="port", max_length=64)] = []
    uplinks: Annotated[list[Uplink], Field(alias="uplink", max_length=8)] = []
    control: Control = Control()
    capture: Capture = Capture()
    log: Log = Log()
    metrics: Metrics = Metrics()
    commands: Commands = Commands()
    command_keys: Annotated[list[CommandKey], Field(alias="command_key", max_length=16)] = []

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.gateway.state

    @property
    def store_path(self) -> Path:
        """The SQLite file of the store."""
        return self.state / "store.db"

    @property
    def control_socket(self) -> Path:
        """The control socket: [control] socket, else control.sock in the state folder."""
        return self.control.socket or self.state / "control.sock"


_TABLES: dict[str, type[_Table]] = {
    "gateway": Gateway,
    "clock": ClockTrust,
    "store": Store,
    "limits": Limits,
    "port": Port,
    "uplink": Uplink,
    "control": Control,
    "capture": Capture,
    "log": Log,
    "metrics": Metrics,
    "commands": Commands,
    "command_key": CommandKey,
}
_ARRAYS = ("port", "uplink", "command_key")


def load(path: Path | str) -> GatewayConfig:
    """Read and validate a configuration file.

    Raises SimpangError: config.unreadable, and what `parse` raises.
    """
    path = Path(path)
    if tables.elsewhere():
        return take(tables.Validation(path))
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise SimpangError("config.unreadable", file=path, error=describe(error)) from error
    except UnicodeDecodeError as error:
        raise SimpangError("config.syntax", file=path, error=f"byte {error.start} is not UTF-8") from error
    return parse(text, path)


def take(validation: tables.Validation) -> GatewayConfig:
    """Wait for a file that a child validates. Raises what `load` raises."""
    config: GatewayConfig = GatewayConfig.restored(validation.result())  # type: ignore[attr-defined]
    return config


def parse(text: str, path: Path) -> GatewayConfig:
    """Validate the text of a configuration that stands, or will stand, in the file `path`.

    Raises SimpangError: config.syntax, config.unknown_key, config.missing, config.value, config.duplicate,
    config.kind.
    Only the first fault is reported, because one misspelt key often causes the next.
    """
    import tomllib

    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SimpangError("config.syntax", file=path, error=describe(error)) from error
    try:
        config = GatewayConfig.model_validate(data, context=path.absolute().parent)
    except ValidationError as error:
        raise _explain(path, error) from error
    _refuse_duplicates(path, "port", "name", [port.name for port in config.ports])
    _refuse_duplicates(path, "port", "url", [port.url for port in config.ports])
    _refuse_duplicates(path, "port", "nodes", [node for port in config.ports for node in port.nodes or ()])
    for number, port in enumerate(config.ports, 1):
        for needed, keys in _KEYS_OF_KIND.items():
            stray = [key for key in keys if key in port.model_fields_set]
            if stray and port.kind != needed:
                raise SimpangError(
                    "config.kind",
                    file=path,
                    key=f"[[port]] #{number} {stray[0]}",
                    kind=_quote(port.kind),
                    needs=_quote(needed),
                )
    _refuse_duplicates(path, "uplink", "name", [uplink.name for uplink in config.uplinks])
    for number, uplink in enumerate(config.uplinks, 1):
        if uplink.password_file and not uplink.username:
            key = f"[[uplink]] #{number} username"
            expected = _expected(Uplink, "username")
            raise SimpangError("config.missing", file=path, key=key, expected=expected)
        _check_tls(path, f"[[uplink]] #{number}", uplink)
    _refuse_duplicates(path, "command_key", "name", [key.name for key in config.command_keys])
    return _with_client_ids(config)


def _check_tls(path: Path, where: str, uplink: Uplink) -> None:
    for one, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(uplink, one) is not None and getattr(uplink, other) is None:
            key = f"{where} {other}"
            raise SimpangError("config.missing", file=path, key=key, expected=_expected(Uplink, other))
    if not uplink.tls and any(getattr(uplink, key) is not None for key in _TLS_KEYS):
        raise SimpangError("config.value", file=path, key=f"{where} tls", found="false", expected="true")


def _with_client_ids(config: GatewayConfig) -> GatewayConfig:
    uplinks = [
        uplink
        if uplink.client_id
        else uplink.model_copy(update={"client_id": f"simpang-{config.gateway.site}-{uplink.name}"})
        for uplink in config.uplinks
    ]
    return config.model_copy(update={"uplinks": uplinks})


def _refuse_duplicates(path: Path, table: str, key: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise SimpangError("config.duplicate", file=path, key=f"[[{table}]] {key}", found=_quote(value))


def _explain(path: Path, failure: ValidationError) -> SimpangError:
    import difflib

    faults = failure.errors(include_url=False)
    # A misspelt key shows up as a missing and as an unknown one: the unknown one names what to correct.
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    location = fault["loc"]
    where = _where(location)
    names = [part for part in location if isinstance(part, str)]
    model = _TABLES[names[0]] if len(names) > 1 else GatewayConfig
    name = names[min(1, len(names) - 1)]
    if fault["type"] == "extra_forbidden":
        known = [field.alias or key for key, field in model.model_fields.items()]
        near = difflib.get_close_matches(name.lower(), known, n=1) or known
        shown = [_where((key,)) for key in near] if model is GatewayConfig else near
        return SimpangError("config.unknown_key", file=path, key=where, near=" / ".join(shown))
    expected = _expected(model, name)
    if fault["type"] == "missing":
        return SimpangError("config.missing", file=path, key=where, expected=expected)
    return SimpangError("config.value", file=path, key=where, found=_quote(fault["input"]), expected=expected)


def _where(location: tuple[int | str, ...]) -> str:
    """Return a place as it is written in the file, such as `[store] commit_ms` or `[[port]] #2 baud`."""
    table, rest = location[0], location[1:]
    if table in _ARRAYS:
        shown = f"[[{table}]]"
        if rest and isinstance(rest[0], int):
            shown += f" #{rest[0] + 1}"
            rest = rest[1:]
    else:
        shown = f"[{table}]"
    return f"{shown} {rest[0]}" if rest else shown


def _expected(model: type[_Table], name: str) -> str:
    """Return what a key takes, in a form that needs no translation, such as `5..500`."""
    if model is GatewayConfig:
        required = [key for key, field in _TABLES[name].model_fields.items() if field.is_required()]
        return f"{_where((name,))} {', '.join(required)}".rstrip()
    schema: dict[str, Any] = model.model_json_schema()["properties"][name]
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return " | ".join(map(_described, kinds))


def _described(schema: dict[str, Any]) -> str:
    """Return what one kind of value takes."""
    if "enum" in schema or "const" in schema:
        return " | ".join(_quote(value) for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "integer":
        return f"{schema['minimum']}..{schema['maximum']}"
    return str(schema["examples"][0])


def _quote(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _FOUND_LIMIT else text[:_FOUND_LIMIT] + "..."
