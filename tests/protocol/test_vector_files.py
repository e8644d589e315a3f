"""The files of protocol/vectors themselves: their form, their counts, and that each is tested."""

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.schemacheck import problems

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "protocol" / "vectors"
SCHEMA = FOLDER / "vectors.schema.json"
FILES = sorted(path for path in FOLDER.glob("*.json") if path != SCHEMA)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _tests(document: Any) -> list[Any]:
    return [test for group in document["groups"] for test in group["tests"]]


def _words(test: Any) -> set[str]:
    """The flags of a test, and what is said of its steps."""
    steps = test.get("steps", [])
    found = {step["verdict"] for step in steps if "verdict" in step}
    return found | {word for step in steps for word in step.get("notes", {})} | set(test["flags"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_conforms_to_the_schema(path: Path) -> None:
    schema = _read(SCHEMA)
    assert problems(_read(path), schema, schema)[:10] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_schema_refuses_what_is_changed(path: Path, seed: int) -> None:
    chance = random.Random(f"{seed} {path.stem}")
    schema = _read(SCHEMA)
    whole = _read(path)
    for number, group in enumerate(whole["groups"]):
        # One group at a time: what is checked again and again should be small.
        small = {**whole, "groups": [{**group, "tests": [chance.choice(group["tests"])]}]}
        for name in small["groups"][0]["tests"][0]:
            for change in ("missing", "other type", "added"):
                document = copy.deepcopy(small)
                test = document["groups"][0]["tests"][0]
                if change == "missing":
                    del test[name]
                elif change == "other type":
                    test[name] = {"surely": "wrong"}
                else:
                    test[name + "_too"] = 1
                assert problems(document, schema, schema), (path.stem, number, name, change)


def test_schema_check_refuses_keywords_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="multipleOf"):
        problems(3, {"multipleOf": 2}, {})


def test_schema_check_tells_right_from_wrong() -> None:
    rules = [
        ({"type": "integer"}, [1, -3], [True, "1", 1.5, None]),
        ({"const": 1}, [1], [True, 2, "1"]),
        ({"enum": [4, 8]}, [4], [5, "4"]),
        ({"pattern": "^a$"}, ["a", 3], ["ab"]),
        ({"minimum": 2, "maximum": 3}, [2, 3, "x"], [1, 4]),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
            [["a"]],
            [[], [1], ["a"] * 3],
        ),
        ({"prefixItems": [{"const": 1}], "items": {"const": 2}}, [[1, 2, 2], []], [[2], [1, 1]]),
        ({"type": "array", "uniqueItems": True}, [[1, 2]], [[1, 1]]),
        (
            {"properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False},
            [{"a": 1}],
            [{}, {"a": 2}, {"a": 1, "b": 1}],
        ),
        ({"anyOf": [{"const": 1}, {"const": 2}]}, [1, 2], [3]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1, 2], [0, 3]),
        ({"if": {"const": 1}, "then": True, "else": {"const": 2}}, [1, 2], [3]),
        ({"$ref": "#/$defs/x"}, [7], [8]),
        ({"minLength": 2}, ["ab"], ["a"]),
    ]
    root = {"$defs": {"x": {"const": 7}}}
    for rule, right, wrong in rules:
        for value in right:
            assert problems(value, rule, root) == [], (rule, value)
        for value in wrong:
            assert problems(value, rule, root), (rule, value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_numbers_of_tests(path: Path) -> None:
    document = _read(path)
    tests = _tests(document)
    assert [test["tcId"] for test in tests] == list(range(1, document["numberOfTests"] + 1))
    inputs = [
        group["type"] + json.dumps({k: v for k, v in t.items() if k not in ("tcId", "comment", "flags")})
        for group in document["groups"]
        for t in group["tests"]
    ]
    assert len(set(inputs)) == len(inputs), "the same test twice"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_flag_is_documented_and_used(path: Path) -> None:
    document = _read(path)
    used = set().union(*(_words(test) for test in _tests(document)))
    assert used == set(document["notes"])


def test_every_file_is_played_on_both_interpreters() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "both").glob("test_vector*.py")
    )
    played = set(re.findall(r'\brun\(\s*"(\w+)"', code))
    assert played == {path.stem for path in FILES}


def test_both_results_occur_wherever_something_can_be_refused() -> None:
    schema = _read(SCHEMA)
    results: dict[str, set[str]] = {}
    for path in FILES:
        for group in _read(path)["groups"]:
            results.setdefault(group["type"], set()).update(test["result"] for test in group["tests"])
    kinds = schema["properties"]["groups"]["items"]["properties"]["type"]["enum"]
    assert sorted(results) == kinds
    for kind, found in results.items():
        place = schema["$defs"][f"group_{kind}"]["properties"]["tests"]["items"]["$ref"]
        rule = schema["$defs"][place.rsplit("/", 1)[1]]
        assert found == ({"valid", "invalid"} if "if" in rule or "anyOf" in rule else {"valid"}), kind
