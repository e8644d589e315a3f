"""Key files: whatever stands in one, the node reads it or says what is wrong, and never a key."""

import json

from node.key import parse

GOOD = {
    "v": 1,
    "site": "semarang-1",
    "node": 7,
    "generation": 2,
    "epoch_start": 1025,
    "up": "11" * 16,
    "down": "22" * 16,
    "up4": "33" * 16,
    "hello": "ab" * 32,
}


def refusal(data):
    try:
        parse(data)
    except ValueError as error:
        return str(error)
    return None


def with_change(name, value):
    table = dict(GOOD)
    table[name] = value
    return json.dumps(table).encode()


def test_key_file_is_read():
    key = parse(json.dumps(GOOD).encode())
    assert (key.node, key.generation, key.epoch_start) == (7, 2, 1025)
    keys = {"up": b"\x11" * 16, "down": b"\x22" * 16, "hello": b"\xab" * 32}
    assert key.keys == dict(keys, up4=b"\x33" * 16)
    # Only a line with short MICs needs up4, and files without it are as good as ever.
    table = dict(GOOD)
    del table["up4"]
    assert parse(json.dumps(table).encode()).keys == keys


def test_file_that_is_no_object_is_refused():
    for data in (b"", b"{", b"\xff\xfe", b"null", b"[]", b"7", b'"11"', b"\0" * 200):
        assert refusal(data) == "it is not a JSON object"


def test_each_wrong_setting_is_named():
    for name, values in {
        "v": (None, 0, 2, "1"),
        "node": (None, 0, -1, 0xFFFF, 1 << 40, "7", [7]),
        "generation": (None, -1, 1 << 32, "1"),
        "epoch_start": (None, 0, 1 << 24, {}),
        "up": (None, "", "11" * 15, "11" * 17, "zz" * 16, "1" * 31, 5, [1]),
        "down": (None, "22" * 32),
        "hello": (None, "ab" * 16),
        "up4": (None, "33" * 8, "zz" * 16, 33),
    }.items():
        for value in values:
            text = refusal(with_change(name, value))
            assert text is not None and text.startswith(name + " is not "), (name, value, text)
        if name == "up4":
            continue
        table = dict(GOOD)
        del table[name]
        assert refusal(json.dumps(table).encode()).startswith(name)


def test_refusal_shows_nothing_of_a_key():
    for name in ("up", "down", "hello", "up4"):
        for value in ("5ecre7" * 7, "5ecre7"):
            assert "5ecre7" not in refusal(with_change(name, value))
    assert "5ecre7" not in refusal(b'{"v":1,"up":"5ecre7')
