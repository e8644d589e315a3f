"""An implementation written from protocol/SPEC.md alone, run over every group of every vector file."""

import json
from collections.abc import Callable
from functools import cache

import pytest

from tests.stranger import codec, framing, messages, records, sealing
from tests.stranger.gatewaymodel import Gateway, Generation
from tests.stranger.nodemodel import Node
from tests.stranger.refused import Refused

VECTORS = codec.SPEC.parent / "vectors"


@cache
def load(name: str) -> dict:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def files() -> list[str]:
    return sorted(path.name for path in VECTORS.glob("*.json") if path.name != "vectors.schema.json")


RUN: dict[str, Callable[[dict, dict], None]] = {}


def runs(name: str) -> Callable[[Callable[[dict, dict], None]], Callable[[dict, dict], None]]:
    def add(function: Callable[[dict, dict], None]) -> Callable[[dict, dict], None]:
        RUN[name] = function
        return function

    return add


def cases() -> list:
    return [
        pytest.param(group, test, id=f"{name.removesuffix('.json')}-{group['type']}-{test['tcId']}")
        for name in files()
        for group in load(name)["groups"]
        for test in group["tests"]
    ]


def hx(text: str) -> bytes:
    return bytes.fromhex(text)


def pick(test: dict, *names: str) -> tuple:
    return tuple(test[name] for name in names)


@pytest.mark.parametrize(("group", "test"), cases())
def test_vector(group: dict, test: dict) -> None:
    run = RUN[group["type"]]
    if test["result"] == "valid" or group["type"] == "multi":
        run(group, test)
        return
    with pytest.raises(Refused) as refused:
        run(group, test)
    assert refused.value.cause == test["flags"][0]


def test_every_group_type_is_run() -> None:
    schema = load("vectors.schema.json")
    declared = set(schema["properties"]["groups"]["items"]["properties"]["type"]["enum"])
    present = {group["type"] for name in files() for group in load(name)["groups"]}
    assert declared == present == set(RUN)


def test_every_file_is_the_one_that_section_20_names() -> None:
    section = codec.SPEC.read_text(encoding="utf-8").split("## 20. Vectors")[1].split("**Sequences**")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    named = {row for row in rows if row and row != "file" and set(row) != {"-"}}
    assert {f"{name}.json" for name in named} == set(files())


@pytest.mark.parametrize("name", files())
def test_file_is_whole(name: str) -> None:
    data = load(name)
    numbers = [test["tcId"] for group in data["groups"] for test in group["tests"]]
    assert numbers == list(range(1, data["numberOfTests"] + 1))
    flags = {flag for group in data["groups"] for test in group["tests"] for flag in test["flags"]}
    assert flags <= set(data["notes"])


def test_worked_bytes_of_section_19_3() -> None:
    frame = hx("21620201060000030064cf3bd578bce4daecc81d143e48e95589164d55397212bdedeacec8")
    parts = ("062162020106", "01", "0203")
    tail = "2164cf3bd578bce4daecc81d143e48e95589164d55397212bdedeacec8606aa8d4"
    assert framing.to_wire(frame) == hx("".join(parts) + tail + "00")


# cobs: section 3


@runs("cobs")
def cobs(group: dict, test: dict) -> None:
    assert framing.cobs_decode(hx(test["encoded"])) == hx(test["plain"])
    assert framing.cobs_encode(hx(test["plain"])) == hx(test["encoded"])


@runs("crc32")
def crc32(group: dict, test: dict) -> None:
    assert framing.crc32(hx(test["data"])) == hx(test["crc"])


@runs("wire")
def wire(group: dict, test: dict) -> None:
    line = hx(test["wire"])
    assert line[-1] == 0
    assert framing.from_wire(line[:-1]) == hx(test["frame"])
    assert framing.to_wire(hx(test["frame"])) == line


@runs("stream")
def stream(group: dict, test: dict) -> None:
    line = framing.Line()
    for piece in test["pieces"]:
        line.feed(hx(piece))
    assert line.frames == [hx(frame) for frame in test["frames"]]
    counts = {"bad_cobs": test["bad_cobs"], "bad_crc": test["bad_crc"], "overrun": test["overruns"]}
    assert line.counts == counts


# keys: sections 4.5 and 11


@runs("ccm")
def ccm(group: dict, test: dict) -> None:
    given = (hx(test["key"]), test["mic"], hx(test["nonce"]), hx(test["aad"]))
    plain = sealing.ccm_open(*given, hx(test["sealed"]))
    assert plain == hx(test["plain"])
    assert sealing.ccm_seal(*given, plain) == hx(test["sealed"])


@runs("hmac_sha256")
def hmac_sha256(group: dict, test: dict) -> None:
    assert sealing.hmac_sha256(hx(test["key"]), hx(test["message"])) == hx(test["mac"])


@runs("hkdf")
def hkdf(group: dict, test: dict) -> None:
    okm = hx(test["okm"])
    assert sealing.hkdf(hx(test["secret"]), hx(test["salt"]), hx(test["info"]), len(okm)) == okm


@runs("node_keys")
def node_keys(group: dict, test: dict) -> None:
    keys = sealing.node_keys(hx(test["root"]), *pick(test, "site", "node", "generation"))
    assert {name: key.hex() for name, key in keys.items()} == {name: test[name] for name in keys}


# codec: section 7


@runs("body")
def body(group: dict, test: dict) -> None:
    rows, behind = codec.decode(test["schema"], test["count"], hx(test["body"]))
    assert rows == test["rows"] and behind == b""
    if not {"another_coding", "appended_columns"} & set(test["flags"]):
        assert codec.encode(test["schema"], rows) == hx(test["body"])


# records: section 5


@runs("record")
def record(group: dict, test: dict) -> None:
    data = hx(test["record"])
    read = records.read_record(data)
    rows, items = read.rows_and_items()
    names = ("schema", "seq", "epoch", "basis", "count", "t0", "period_s")
    assert tuple(getattr(read, name) for name in names) == pick(test, *names)
    assert rows == test["rows"]
    shown = None if items is None else [[tag, value.hex()] for tag, value in items]
    assert shown == test["items"]
    if rows is not None and "another_coding" not in test["flags"]:
        assert records.write_record(read, rows, items) == data
    if read.epoch is not None:
        bare = records.without_epoch(data)
        assert records.read_record(bare).epoch is None
        assert records.with_epoch(bare, read.epoch) == data


@runs("multi")
def multi(group: dict, test: dict) -> None:
    found, cut = records.split_records(hx(test["plain"]))
    taken, causes = [], []
    for data in found:
        try:
            records.read_record(data)
            taken.append(data.hex())
        except Refused as why:
            causes.append(why.cause)
    causes += ["record_cut"] * cut
    assert taken == test["records"]
    assert causes == (test["flags"][:1] if test["result"] == "invalid" else [])


@runs("text")
def text(group: dict, test: dict) -> None:
    assert records.text_item(test["text"]) == hx(test["item"])


# frames: sections 4, 5.1 and 9


@runs("frame")
def frame(group: dict, test: dict) -> None:
    data, key = hx(test["frame"]), hx(test["key"])
    run = hx(test["run"] or "") or sealing.NO_RUN
    header = sealing.read_header(data)
    sealing.check_mic_length(header, test["mic"])
    plain = sealing.unseal(header, data, key, run, test["receiver_epoch"])
    names = ("direction", "kind", "node", "epoch", "counter", "generation", "ack_requested", "end", "multi")
    assert tuple(getattr(header, name) for name in names) == pick(test, *names)
    assert [[tag, value.hex()] for tag, value in header.extensions or []] == test["extensions"]
    assert sealing.nonce_of(header, run) == hx(test["nonce"])
    assert sealing.aad_of(header, test["receiver_epoch"]) == hx(test["aad"])
    assert plain == hx(test["plain"])
    assert sealing.seal(header, key, plain, run, test["receiver_epoch"]) == data


@runs("burst_head")
def burst_head(group: dict, test: dict) -> None:
    plain = hx(test["plain"])
    size, uptime, floors = messages.read_burst_head(plain)
    assert (size, uptime, [list(floor) for floor in floors]) == pick(test, "size", "uptime_s", "floors")
    assert messages.write_burst_head(uptime, floors) == plain[:size]


@runs("ack")
def ack(group: dict, test: dict) -> None:
    read = messages.read_ack(hx(test["plain"]))
    assert (read.echo, read.credit, read.hold_ms) == pick(test, "echo", "credit", "hold_ms")
    assert (None if read.time is None else vars(read.time)) == test["time"]
    assert [[epoch, base, f"{bits:016x}"] for epoch, base, bits in read.blocks] == test["blocks"]
    if "another_coding" not in test["flags"]:
        assert read.encode() == hx(test["plain"])


# hello: section 12, and 14.2


@runs("hello")
def hello(group: dict, test: dict) -> None:
    data, key = hx(test["frame"]), hx(test["key"])
    read = messages.read_hello(data, key, [hx(c) for c in test.get("live", [])])
    assert read.kind == test["kind"]
    assert read.challenge == hx(test["challenge"])
    if read.kind == "up":
        names = ("reason", "answers", "proposed")
        assert tuple(getattr(read, name) for name in names) == pick(test, *names)
    elif read.kind == "down":
        assert (read.minimum, read.run.hex(), vars(read.time)) == pick(test, "minimum", "run", "time")
    assert read.encode(key, read.used or messages.NO_CHALLENGE) == data


def gateway_of(group: dict, test: dict, **more) -> Gateway:
    def generation(given: dict) -> Generation:
        return Generation(given["generation"], {name: hx(key) for name, key in given["keys"].items()})

    following = generation(group["following"]) if "following" in group else None
    more["runs"] = [hx(run) for run in test["runs"]]
    more["challenges"] = [hx(challenge) for challenge in test["challenges"]]
    return Gateway(group["node"], generation(group), following, test["stored"], **more)


def all_drawn(machine: Gateway | Node) -> None:
    """Every challenge and run that the vector lists was needed, and no other."""
    assert list(machine.challenges) == []
    assert list(getattr(machine, "runs", ())) == []


@runs("greeting")
def greeting(group: dict, test: dict) -> None:
    gateway = gateway_of(group, test)
    for step in test["steps"]:
        at = step["at"]
        gateway.tick(at)
        if "restarts" in step:
            gateway.restart()
        elif "solicits" in step:
            gateway.solicit(at)
            assert gateway.sent() == ([hx(step["solicits"])] if step["solicits"] else [])
        else:
            verdict, _ = gateway.hear(at, hx(step["frame"]))
            assert verdict == step["verdict"]
            assert gateway.sent() == [hx(answer) for answer in step["at_once"]]
            if gateway.changed:
                gateway.commit(at)
            assert gateway.sent() == [hx(answer) for answer in step["after_commit"]]
            assert gateway.show()["windows"] == step["windows"]
    all_drawn(gateway)


# replay and windows: sections 4.6, 9, 13.2 and 14.1


@runs("replay_up")
def replay_up(group: dict, test: dict) -> None:
    gateway = gateway_of(group, test, mic=test["mic"])
    for step in test["steps"]:
        gateway.tick(step["at"])
        if "restarts" in step:
            gateway.restart()
            continue
        data = hx(step["frame"])
        assert (messages.u(data[4:7]), messages.u(data[7:9])) == (step["epoch"], step["counter"])
        verdict, _ = gateway.hear(step["at"], data)
        assert verdict == step["verdict"]
        if gateway.changed:
            gateway.commit(step["at"])
    all_drawn(gateway)


@runs("gateway_window")
def gateway_window(group: dict, test: dict) -> None:
    gateway = gateway_of(group, test)
    for step in test["steps"]:
        gateway.tick(step["at"])
        assert brought(gateway, hx(step["frame"]), step["verdict"]) == step["brings"]
        verdict, notes = gateway.hear(step["at"], hx(step["frame"]))
        assert (verdict, notes) == pick(step, "verdict", "notes")
        if gateway.changed:
            gateway.commit(step["at"])
        assert gateway.show() == {name: step[name] for name in gateway.show()}
    all_drawn(gateway)


def brought(gateway: Gateway, data: bytes, verdict: str) -> dict:
    """What is in a frame, whether it counts or not."""
    header = sealing.read_header(data)
    plain = sealing.unseal(header, data, gateway.generation.keys["up"])
    brings: dict = {"floors": [], "records": [], "drops": []}
    if verdict == "burst_head":
        return brings
    if header.ack_requested or header.end or header.kind == sealing.EMPTY:
        size, _, floors = messages.read_burst_head(plain)
        brings["floors"] = [list(floor) for floor in floors]
        plain = plain[size:]
    if header.kind != sealing.DATA:
        return brings
    for one in records.split_records(plain)[0] if header.multi else [plain]:
        if len(one) < 9:
            continue
        epoch = messages.u(one[4:7]) if one[3] & 0x20 else header.epoch
        brings["records"].append([epoch, messages.u(one[1:3])])
        if one[0] == 5:
            _, items = records.read_record(one).rows_and_items()
            brings["drops"] += [list(records.lost_range(value)) for tag, value in items if tag == 5]
    return brings


def node_of(group: dict, test: dict, **more) -> Node:
    keys = {name: hx(key) for name, key in group["keys"].items()}
    challenges = [hx(challenge) for challenge in test["node_challenges"]]
    identity = (group["node"], group["generation"])
    return Node(*identity, keys, test["epoch"], challenges, test["journal"], **more)


@runs("resume")
@runs("node_window")
@runs("replay_down")
def node_sequence(group: dict, test: dict) -> None:
    node = node_of(group, test, memory=hx(test["memory"]) if "memory" in test else None)
    for step in test["steps"]:
        if "sends" in step:
            assert node.poll(step["at"]) == [hx(data) for data in step["sends"]]
        elif "raises_epoch_to" in step:
            node.raise_epoch(step["raises_epoch_to"])
        elif "creates" in step:
            node.create(hx(step["creates"]))
        else:
            assert node.hear(step["at"], hx(step["hears"])) == step["verdict"]
        if "held" in step:
            assert held(node) == step["held"]
    all_drawn(node)


def held(node: Node) -> list[list[int]]:
    return [list(identity) for identity in sorted(node.held)]


# commands: section 10


@runs("config")
def config(group: dict, test: dict) -> None:
    read = messages.read_config(hx(test["plain"]))
    assert read == (test["command"], test["op"], hx(test["data"]))
    assert messages.write_config(*read) == hx(test["plain"])


@runs("result")
def result(group: dict, test: dict) -> None:
    data = hx(test["record"])
    assert records.command_result(data) == pick(test, "command", "outcome", "text")
    read = records.read_record(data)
    assert read.seq == test["seq"]
    severity = 0 if test["outcome"] == 0 else 1
    items = [(records.TEXT, test["text"].encode())] if test["text"] else []
    rows = [[records.COMMAND, severity, test["command"], test["outcome"]]]
    assert records.write_record(read, rows, items) == data


@runs("update")
def update(group: dict, test: dict) -> None:
    read = messages.read_update(hx(test["plain"]))
    assert read == (test["update"], test["chunk"], hx(test["data"]))


@runs("update_status")
def update_status(group: dict, test: dict) -> None:
    read = messages.read_update_status(hx(test["plain"]))
    assert read == (*pick(test, "update", "state", "base"), hx(test["bitmap"]))


# envelope: section 15.3


@runs("heard")
@runs("send")
@runs("bridge_health")
@runs("ask")
def envelope(group: dict, test: dict) -> None:
    data = hx(test["envelope"])
    fields = messages.read_envelope(data)
    kinds = {"heard": messages.HEARD, "send": messages.SEND, "bridge_health": messages.HEALTH}
    kind = kinds.get(group["type"], messages.ASK)
    assert fields["kind"] == kind
    del fields["kind"]
    assert fields == {name: test[name] for name in fields}
    if "another_coding" not in test["flags"]:
        assert messages.write_envelope({"kind": kind, **fields}) == data


# rtc: section 13.4


@runs("rtc_state")
def rtc_state(group: dict, test: dict) -> None:
    state = messages.read_rtc(hx(test["memory"]))
    assert state.fields() == {name: test[name] for name in state.fields()}
    assert state.encode() == hx(test["memory"])


# session: both ends at once


@runs("session")
@runs("polled_session")
def session(group: dict, test: dict) -> None:
    """Each end hears what the script says, and must send exactly what it says, when it says."""
    polled = group["type"] == "polled_session"
    gateway = gateway_of(group, test, clock_s=test["clock_s"], polled=polled)
    node = node_of(group, test, polled=polled)
    check_state(gateway, node, test["before"])
    node_sends: list[tuple[int, bytes]] = []
    gateway_sends: list[tuple[int, bytes]] = []
    now = -1

    def collect(at: int) -> None:
        node_sends.extend((at, data) for data in node.poll(at))
        gateway_sends.extend((at, data) for data in gateway.sent())

    for step in test["steps"]:
        at, event = step["at"], step["event"]
        while now < at:
            now += 1
            assert now == at or not (node_sends or gateway_sends)
            gateway.tick(now)
            collect(now)
        data = hx(step.get("frame", ""))
        if event == "node_sends":
            assert node_sends.pop(0) == (at, data)
        elif event == "gateway_sends":
            assert gateway_sends.pop(0) == (at, data)
        elif event == "node_creates":
            assert list(node.create(hx(step["record"]))) == step["id"]
        elif event == "node_hears":
            assert node.hear(at, data) == step["verdict"]
            assert held(node) == step["held"]
        elif event == "gateway_hears":
            assert gateway.hear(at, data) == pick(step, "verdict", "notes")
        elif event == "gateway_posts":
            gateway.post(step["command"], step["op"], hx(step["data"]))
        elif event == "gateway_polls":
            gateway.poll(at)
        else:
            assert event in ("gateway_commits", "gateway_restarts")
            if event == "gateway_commits":
                assert gateway.changed
                gateway.commit(at)
            else:
                gateway.restart()
            assert gateway.show() == {name: step[name] for name in gateway.show()}
        collect(at)
    assert not node_sends and not gateway_sends
    check_state(gateway, node, test["after"])
    assert [[kind, plain.hex()] for kind, plain in node.commands] == test["after"]["commands"]
    assert [list(one) for one in gateway.kept.results] == test["after"]["results"]
    all_drawn(gateway)
    all_drawn(node)


def check_state(gateway: Gateway, node: Node, expected: dict) -> None:
    assert held(node) == expected["node_holds"]
    assert gateway.show() == {name: expected[f"gateway_{name}"] for name in gateway.show()}
