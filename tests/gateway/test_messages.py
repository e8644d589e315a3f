"""The message table: complete in both languages, used with the right arguments, printed as docs/errors.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from simpang_gateway.errors import SimpangError
from simpang_gateway.messages import LANGUAGES, MESSAGES, RESERVED_ARGUMENTS, language, to_markdown

ROOT = Path(__file__).parents[2]
CALLS = ("SimpangError", "emit", "raise_")


@pytest.mark.parametrize("code", MESSAGES)
def test_entry_is_complete_in_both_languages(code: str) -> None:
    message = MESSAGES[code]
    assert re.fullmatch(r"[a-z]+\.[a-z0-9_]+", code)
    assert message.severity in ("info", "warning", "error")
    for text in (message.cause_en, message.next_en, message.cause_id, message.next_id):
        assert text == text.strip() != ""
        assert not text.endswith(".")
        assert "\n" not in text
    assert message.arguments("en") == message.arguments("id")
    assert not message.arguments() & RESERVED_ARGUMENTS


@pytest.mark.parametrize("code", [code for code in MESSAGES if code not in ("cli.usage", "control.remote")])
def test_languages_differ(code: str) -> None:
    assert MESSAGES[code].cause_en != MESSAGES[code].cause_id
    assert MESSAGES[code].next_en != MESSAGES[code].next_id


def test_codes_of_one_group_stand_together() -> None:
    groups = [code.partition(".")[0] for code in MESSAGES]
    assert len(set(groups)) == sum(a != b for a, b in zip(groups, [None, *groups], strict=False))


def _calls() -> Iterator[tuple[str, str, set[str] | None]]:
    """Yield (place, code, argument names or None) for every use of a literal code in gateway and tools."""
    for path in sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("tools/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if name not in CALLS or not isinstance(first, ast.Constant) or not isinstance(first.value, str):
                continue
            if "." not in first.value:
                continue
            # Arguments that are handed on as a whole cannot be read off the source.
            whole = any(keyword.arg is None for keyword in node.keywords)
            whole = whole or (name == "emit" and len(node.args) > 1)
            names = None if whole else {keyword.arg for keyword in node.keywords if keyword.arg}
            yield f"{path.relative_to(ROOT)}:{node.lineno}", first.value, names


def test_every_code_is_used_with_the_arguments_of_its_texts() -> None:
    faults = []
    for place, code, names in _calls():
        if code not in MESSAGES:
            faults.append(f"{place}: {code} is not in the message table")
        elif names is not None and (missing := MESSAGES[code].arguments() - names):
            faults.append(f"{place}: {code} lacks {', '.join(sorted(missing))}")
    assert not faults, "\n".join(faults)


def test_every_frame_cause_of_the_protocol_has_a_message() -> None:
    causes = set()
    for path in (ROOT / "protocol" / "simpang_protocol").glob("*.py"):
        causes |= set(re.findall(r'FrameError\("([a-z0-9_]+)"', path.read_text()))
    assert {f"frame.{cause}" for cause in causes} <= set(MESSAGES)


def test_document_is_the_table() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == to_markdown()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "id_ID.UTF-8"}, "id"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "id_ID.UTF-8", "SIMPANG_LANG": "en"}, "en"),
        ({"SIMPANG_LANG": "id"}, "id"),
        ({"SIMPANG_LANG": "fr", "LANG": "id_ID"}, "id"),
    ],
)
def test_language_follows_the_environment(environ: dict[str, str], expected: str) -> None:
    assert language(environ) == expected


def test_error_is_one_line_with_cause_and_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    error = SimpangError("port.missing", port="line1", url="/dev/ttyUSB0")
    assert error.line("en") == (
        "port.missing: port line1: /dev/ttyUSB0 is not there. "
        "Next: plug the adapter in, or correct url in [[port]]."
    )
    assert error.line("id").startswith(
        "port.missing: port line1: /dev/ttyUSB0 tidak ada. Langkah berikut: pasang"
    )
    monkeypatch.setenv("SIMPANG_LANG", "id")
    assert str(error) == error.line("id")
    assert error.to_dict("en")["next"] == error.next_step("en")
    assert error.severity == "error"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_arguments_cannot_break_the_line(lang: str) -> None:
    error = SimpangError("port.failed", port="a\nb", url="\x1b[31m{error}", error="x" * 5000)
    line = error.line(lang)
    assert "\n" not in line
    assert "\x1b" not in line
    assert "{error}" in line
    assert len(line) < 1000


def test_forgotten_argument_shows_as_a_question_mark() -> None:
    assert SimpangError("node.unknown").cause("en") == "node ? is not in the registry"


def test_code_without_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no\\.such"):
        SimpangError("no.such")


@pytest.mark.parametrize(
    ("code", "status"),
    [("config.value", 2), ("cli.usage", 2), ("key.mode", 2), ("port.busy", 1), ("control.none", 1)],
)
def test_exit_status_tells_wrong_use_from_a_finding(code: str, status: int) -> None:
    assert SimpangError(code).exit_status == status
