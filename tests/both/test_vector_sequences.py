"""The published vectors of conversations, played to the real ends: replay, windows, and a whole session."""

from simpang_protocol import rtcstate
from simpang_protocol.frame import parse_header
from vectorkit import load, run, same, unhex
from vectorworld import GatewayEnd, NodeEnd


def _replay_up(test, group):
    gateway = GatewayEnd(group, test, test["mic"])
    for step in test["steps"]:
        if step.get("restarts"):
            gateway.start()
            continue
        data = unhex(step["frame"])
        header = parse_header(data)
        same((header.epoch, header.counter), (step["epoch"], step["counter"]))
        verdict, _notes = gateway.hear(data, step["at"])
        same((step["at"], verdict), (step["at"], step["verdict"]))
        gateway.commit(step["at"])


def _rtc_state(test, _group):
    data = unhex(test["memory"])
    got = rtcstate.parse(data)
    if got is None:
        return "no_state"
    for name in (
        "epoch", "counter", "down_counter", "base", "next_seq",
        "uptime_ms", "offset_ms", "quality", "taken_ms",
    ):  # fmt: skip
        same((name, getattr(got, name)), (name, test[name]))
    same(got.run, unhex(test["run"]))
    same(got.to_bytes(), data)
    return None


def _node(test, group):
    node = NodeEnd(group, test)
    for step in test["steps"]:
        at = step["at"]
        if "raises_epoch_to" in step:
            node.link.raise_epoch()
            same((at, node.link.epoch), (at, step["raises_epoch_to"]))
        elif "creates" in step:
            node.create(unhex(step["creates"]))
            same((at, node.held()), (at, step["held"]))
        elif "sends" in step:
            same((at, node.polled(at)), (at, [unhex(entry) for entry in step["sends"]]))
        else:
            same((at, node.hear(unhex(step["hears"]), at)), (at, step["verdict"]))
            if "held" in step:
                same((at, node.held()), (at, step["held"]))


def test_replay():
    run("replay", {"replay_up": _replay_up, "replay_down": _node})


def test_deep_sleep():
    run("rtc", {"rtc_state": _rtc_state, "resume": _node})


def _gateway_window(test, group):
    gateway = GatewayEnd(group, test)
    for step in test["steps"]:
        at = step["at"]
        found = gateway.hear(unhex(step["frame"]), at)
        same((at, found), (at, (step["verdict"], step["notes"])))
        gateway.commit(at)
        for name, value in gateway.state().items():
            same((at, name, value), (at, name, step[name]))


def test_windows():
    run("windows", {"gateway_window": _gateway_window, "node_window": _node})


def _play_node(test, group):
    """The node's end alone: it hears what arrived, and must send what is written, when it is written."""
    node = NodeEnd(group, test, group["type"] == "polled_session")
    same(node.held(), test["before"]["node_holds"])
    steps = [step for step in test["steps"] if step["event"].startswith("node_")]
    end = steps[-1]["at"]
    now = 0
    while now <= end:
        while steps and steps[0]["at"] == now and steps[0]["event"] != "node_sends":
            step = steps.pop(0)
            if step["event"] == "node_creates":
                node.create(unhex(step["record"]))
                continue
            same((now, node.hear(unhex(step["frame"]), now)), (now, step["verdict"]))
            same((now, node.held()), (now, step["held"]))
        for sent in node.polled(now):
            assert steps and steps[0]["event"] == "node_sends" and steps[0]["at"] == now, (now, sent)
            same((now, sent), (now, unhex(steps.pop(0)["frame"])))
        waits = node.link.wait_ms(now)
        assert waits > 0, now
        now = min(now + waits, steps[0]["at"] if steps else end + 1)
    assert not steps, "never sent: %r" % steps[0]
    same(node.held(), test["after"]["node_holds"])
    same(
        [[kind, plain] for kind, plain in node.commands],
        [[k, unhex(p)] for k, p in test["after"]["commands"]],
    )


def _check_gateway(gateway, expected, prefix, at):
    for name, value in gateway.state().items():
        same((at, name, value), (at, name, expected[prefix + name]))


def _play_gateway(test, group):
    """The gateway's end alone: it hears what arrived, commits when told to, and must answer as written."""
    gateway = GatewayEnd(group, test, 8, group["type"] == "polled_session")
    _check_gateway(gateway, test["before"], "gateway_", 0)
    for step in test["steps"]:
        at = step["at"]
        event = step["event"]
        if event.startswith("gateway_"):
            gateway.tick(at)
        if event == "gateway_hears":
            same((at, gateway.hear(unhex(step["frame"]), at)), (at, (step["verdict"], step["notes"])))
        elif event == "gateway_commits":
            gateway.commit(at)
            _check_gateway(gateway, step, "", at)
        elif event == "gateway_restarts":
            gateway.start()
            _check_gateway(gateway, step, "", at)
        elif event == "gateway_posts":
            gateway.session.post(step["command"], step["op"], unhex(step["data"]))
        elif event == "gateway_polls":
            gateway.poll(at)
        elif event == "gateway_sends":
            assert gateway.sent, "nothing to send at %d" % at
            same((at, gateway.sent.pop(0)), (at, unhex(step["frame"])))
    assert not gateway.sent
    _check_gateway(gateway, test["after"], "gateway_", "end")
    same([list(result) for result in gateway.results], test["after"]["results"])


def test_session_from_the_node():
    run("session", {"session": _play_node, "polled_session": _play_node})


def test_session_from_the_gateway():
    run("session", {"session": _play_gateway, "polled_session": _play_gateway})


def test_what_one_end_of_the_session_sends_arrives_at_the_other_or_is_lost():
    for group in load("session"):
        for test in group["tests"]:
            on_the_way = []
            for step in test["steps"]:
                sender, _space, what = step["event"].partition("_")
                if what == "sends" and not step["lost"]:
                    on_the_way.append(
                        (step["at"] + 8, "node" if sender == "gateway" else "gateway", step["frame"])
                    )
                elif what == "hears" and not step.get("repeated"):
                    same(on_the_way.pop(0), (step["at"], sender, step["frame"]))
            assert not on_the_way
