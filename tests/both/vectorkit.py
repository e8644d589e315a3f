"""Reads the files of protocol/vectors and runs their groups, on CPython and on the MicroPython VM."""

import json

from simpang_protocol.errors import ProtocolError

FOLDER = __file__.replace("\\", "/").rsplit("/", 3)[0] + "/protocol/vectors/"
if not FOLDER.startswith("/"):
    FOLDER = "./" + FOLDER
unhex = bytes.fromhex


def load(name):
    """Return the groups of a file."""
    with open(FOLDER + name + ".json") as file:
        return json.load(file)["groups"]


def run(name, checks):
    """Run every group of a file; `checks` holds one function per type of group.

    `check(test, group)` raises AssertionError where our code differs from a valid test. It returns None where
    the code takes the input, and the cause where it refuses it.
    """
    done = []
    for group in load(name):
        check = checks.get(group["type"])
        assert check is not None, "%s: no check for groups of type %s" % (name, group["type"])
        done.append(group["type"])
        for test in group["tests"]:
            place = (name, test["tcId"], test["comment"])
            try:
                cause = check(test, group)
            except ProtocolError as error:
                cause = error.cause
            except AssertionError as error:
                raise AssertionError(str((place, error)))  # noqa: B904 (MicroPython has no `from`)
            if test["result"] == "valid":
                assert cause is None, (place, cause)
            else:
                assert cause in test["flags"], (place, cause)
    for kind in checks:
        assert kind in done, "%s: no group of type %s" % (name, kind)


def same(found, expected):
    """Fail, saying what differs."""
    assert found == expected, "%r, expected %r" % (found, expected)


def rows_of(rows):
    """Return rows as the codec has them."""
    return [tuple(row) for row in rows]
