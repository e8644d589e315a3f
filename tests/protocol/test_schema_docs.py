"""Documents that show the schemas say what the registry says."""

import pytest

from simpang import schemadocs
from simpang_protocol.schema import SCHEMAS

AGAIN = f"make it anew: {schemadocs.COMMAND}"


def test_every_field_has_a_meaning_and_nothing_else_has() -> None:
    expected = {known.name: [field.name for field in known.fields] for known in SCHEMAS.values()}
    assert {name: list(fields) for name, fields in schemadocs.MEANINGS.items()} == expected
    assert list(schemadocs.ABOUT) == list(expected)


def test_document_is_up_to_date() -> None:
    assert schemadocs.DOCUMENT.read_text("utf-8") == schemadocs.document(), AGAIN


def test_specification_holds_the_table_of_the_registry() -> None:
    spec = schemadocs.SPEC.read_text("utf-8")
    assert spec == schemadocs.with_table(spec), AGAIN


def test_table_has_one_line_for_each_column() -> None:
    lines = schemadocs.spec_table().splitlines()
    assert len(lines) == 2 + sum(len(known.fields) for known in SCHEMAS.values())
    assert "| 3 queue | 5 | `wait_mean` | s | 5 | unsigned | 0 | 10 | 0 previous | 5 |" in lines


def test_table_replaces_what_stands_between_the_marks_alone() -> None:
    text = f"before\n{schemadocs.BEGIN}\nold\n{schemadocs.END}\nafter\n"
    found = schemadocs.with_table(text)
    assert found.startswith("before\n") and found.endswith("\nafter\n")
    assert "old" not in found
    with pytest.raises(ValueError, match="needs a line"):
        schemadocs.with_table("no marks")
