"""One message, and how it becomes text in the user's language."""

import os
import string
from collections.abc import Mapping
from dataclasses import dataclass

LANGUAGES = ("en", "id")
# These stand in every event line, so no argument may be called so.
RESERVED_ARGUMENTS = frozenset({"t", "up", "src", "code", "sev"})
_ARGUMENT_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Message:
    """One entry: `severity` is info, warning or error; the texts hold `{named}` arguments."""

    severity: str
    cause_en: str
    next_en: str
    cause_id: str
    next_id: str

    def arguments(self, lang: str = "en") -> frozenset[str]:
        """Return the names of the arguments that the texts of one language use."""
        text = self.cause_id + self.next_id if lang == "id" else self.cause_en + self.next_en
        return frozenset(name for _, name, _, _ in string.Formatter().parse(text) if name)

    def cause(self, lang: str, arguments: Mapping[str, object]) -> str:
        """Return the cause in `lang` on one line, with the arguments in their places."""
        return _fill(self.cause_id if lang == "id" else self.cause_en, arguments)

    def next_step(self, lang: str, arguments: Mapping[str, object]) -> str:
        """Return the next step in `lang` on one line, with the arguments in their places."""
        return _fill(self.next_id if lang == "id" else self.next_en, arguments)


def language(environ: Mapping[str, str] | None = None) -> str:
    """Return `en` or `id`: SIMPANG_LANG if it names one, else id where LANG begins with id, else en."""
    env = os.environ if environ is None else environ
    chosen = env.get("SIMPANG_LANG", "")
    if chosen in LANGUAGES:
        return chosen
    return "id" if env.get("LANG", "").startswith("id") else "en"


class _Known(dict[str, str]):
    # A message must come out even where the caller forgot an argument: a question mark is the lesser fault.
    def __missing__(self, key: str) -> str:
        return "?"


def _fill(text: str, arguments: Mapping[str, object]) -> str:
    return text.format_map(_Known((name, _plain(value)) for name, value in arguments.items()))


def _plain(value: object) -> str:
    # Arguments come from files, brokers and wires: one line, no terminal controls, bounded.
    line = " ".join(str(value).split())
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return clean if len(clean) <= _ARGUMENT_LIMIT else clean[:_ARGUMENT_LIMIT] + "..."


def error(cause_en: str, next_en: str, cause_id: str, next_id: str) -> Message:
    """An entry of that severity."""
    return Message("error", cause_en, next_en, cause_id, next_id)


def warning(cause_en: str, next_en: str, cause_id: str, next_id: str) -> Message:
    """An entry of that severity."""
    return Message("warning", cause_en, next_en, cause_id, next_id)


def info(cause_en: str, cause_id: str) -> Message:
    """An entry that asks for nothing."""
    return Message("info", cause_en, "nothing needs to be done", cause_id, "tidak perlu tindakan")
