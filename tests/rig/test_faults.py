"""What a fault does to the bytes of one connection, without a network."""

import random

import pytest

from simpang.rig.faults import Fault, Link, Step
from simpang.rig.mqttwire import PUBLISH, Splitter, connack, connect, puback

CONNECT = connect("gateway")
CONNACK = connack(0)


def publish(message_id: int, payload: bytes = b"payload") -> bytes:
    body = b"\x00\x03a/b" + message_id.to_bytes(2, "big") + b"\x00" + payload
    size = len(body)
    length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
    return b"\x32" + length + body


def identifier(number: int) -> bytes:
    return number.to_bytes(2, "big")


@pytest.fixture
def link(seed: int) -> Link:
    link = Link(random.Random(seed))
    assert link.up(CONNECT, None) == Step(to_broker=CONNECT)
    return link


@pytest.mark.parametrize("lot", [1, 3, 1000])
def test_packets_are_found_however_the_bytes_come(lot: int) -> None:
    stream = CONNECT + publish(7) + publish(300, b"x" * 400) + bytes((0xC0, 0)) + puback(b"\x01\x02", 0x97)
    splitter = Splitter()
    found = [p for at in range(0, len(stream), lot) for p in splitter.feed(stream[at : at + lot])]
    assert b"".join(packet.raw for packet in found) == stream
    assert [packet.kind for packet in found] == [1, PUBLISH, PUBLISH, 12, 4]
    assert [packet.message_id for packet in found if packet.acknowledged] == [identifier(7), identifier(300)]
    assert (found[1].topic, found[-1].message_id) == ("a/b", b"\x01\x02")


def test_what_cannot_be_mqtt_is_an_error() -> None:
    with pytest.raises(ValueError, match="more than four bytes"):
        Splitter().feed(b"\x10\xff\xff\xff\xff\xff")


def test_without_a_fault_everything_passes(link: Link) -> None:
    assert link.down(CONNACK, None) == Step(to_client=CONNACK)
    assert link.up(publish(1), None) == Step(to_broker=publish(1))
    assert link.down(puback(identifier(1), 0), None) == Step(to_client=puback(identifier(1), 0))


def test_refused_message_never_reaches_the_broker(link: Link) -> None:
    step = link.up(publish(9), Fault("puback_refused", reasons=(0x97,)))
    assert step == Step(to_client=puback(identifier(9), 0x97))


@pytest.mark.parametrize("swallow", [False, True])
def test_missing_acknowledgement_is_noticed_whether_the_broker_has_the_message_or_not(
    link: Link, swallow: bool
) -> None:
    fault = Fault("puback_never", swallow=swallow)
    assert link.up(publish(9), fault) == Step(to_broker=b"" if swallow else publish(9))
    assert link.unanswered == swallow
    if not swallow:
        assert link.down(puback(identifier(9), 0), fault) == Step()
        assert link.unanswered


def test_acknowledgement_comes_twice(link: Link) -> None:
    ack = puback(identifier(9), 0)
    assert link.down(ack, Fault("puback_twice")) == Step(to_client=ack + ack)


def test_share_of_the_messages_is_drawn(link: Link) -> None:
    fault = Fault("puback_refused", reasons=(0x87, 0x99), share=0.5)
    answers = [link.up(publish(number), fault).to_client for number in range(1, 201)]
    assert 50 < sum(1 for answer in answers if not answer) < 150
    assert {answer[-1] for answer in answers if answer} == {0x87, 0x99}


def test_connection_is_refused_with_a_reason(link: Link) -> None:
    assert link.down(CONNACK, Fault("connack_refused", reasons=(0x88,))) == Step(connack(0x88), end="fin")


@pytest.mark.parametrize("hard", [False, True])
def test_connection_ends_behind_connack(link: Link, hard: bool) -> None:
    step = link.down(CONNACK, Fault("close_after_connack", hard=float(hard), delay_s=0.5))
    assert (step.to_client, step.end) == (CONNACK, "reset" if hard else "fin")
    assert 0 < step.after_s < 0.5


@pytest.mark.parametrize(("up", "down"), [(True, False), (False, True), (True, True)])
def test_half_open_link_loses_its_direction_alone(link: Link, up: bool, down: bool) -> None:
    fault = Fault("half_open", up=up, down=down)
    assert link.up(publish(1), fault) == (Step() if up else Step(to_broker=publish(1)))
    assert link.down(puback(identifier(1), 0), fault).to_client == (b"" if down else puback(identifier(1), 0))


def test_tls_of_others_passes_as_bytes() -> None:
    link = Link(random.Random(1))
    hello = bytes.fromhex("1603010005") + b"hello"
    refused = Fault("connack_refused", reasons=(0x87,))
    assert link.up(hello, refused) == Step(to_broker=hello)
    assert link.down(CONNACK, refused) == Step(to_client=CONNACK)
    assert link.up(b"x", Fault("vanished")) == Step()


def test_garbage_is_no_answer_of_a_broker_and_ends_the_connection(link: Link) -> None:
    steps = [link.up(publish(1), Fault("garbage")) for _ in range(50)]
    assert all(step.to_broker == b"" and step.end == "fin" for step in steps)
    answers = {step.to_client for step in steps}
    assert any(answer.startswith(b"HTTP/1.1 302") for answer in answers)
    assert len(answers) > 10
