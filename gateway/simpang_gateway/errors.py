"""The one exception of the gateway and the command line: a code of the message table and its arguments."""

from .messages import MESSAGES, language

# Used or configured wrongly; every other code means that something wrong was found.
_USAGE_GROUPS = frozenset({"cli", "config", "install", "key"})


class SimpangError(Exception):
    """Something that a person must hear about, with its cause and the next step.

    `code` is a key of `messages.MESSAGES`; `arguments` fill the texts. Raises ValueError for another code.
    """

    def __init__(self, code: str, **arguments: object) -> None:
        if code not in MESSAGES:
            raise ValueError(f"{code} is not in the message table")
        super().__init__(code)
        self.code = code
        self.arguments = arguments

    @property
    def severity(self) -> str:
        """`info`, `warning` or `error`."""
        return MESSAGES[self.code].severity

    @property
    def exit_status(self) -> int:
        """What a command that ends by this error returns: 2 for wrong use or configuration, else 1."""
        return 2 if self.code.partition(".")[0] in _USAGE_GROUPS else 1

    def cause(self, lang: str | None = None) -> str:
        """Return the cause, without a full stop; `lang` is en, id or None for the user's language."""
        return MESSAGES[self.code].cause(lang or language(), self.arguments)

    def next_step(self, lang: str | None = None) -> str:
        """Return what to do next, without a full stop."""
        return MESSAGES[self.code].next_step(lang or language(), self.arguments)

    def line(self, lang: str | None = None) -> str:
        """Return "code: cause. Next: step." on one line."""
        lang = lang or language()
        label = "Langkah berikut" if lang == "id" else "Next"
        return f"{self.code}: {_sentence(self.cause(lang))} {label}: {_sentence(self.next_step(lang))}"

    def to_dict(self, lang: str | None = None) -> dict[str, str]:
        """Return `code`, `severity`, `cause` and `next` for JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "cause": self.cause(lang),
            "next": self.next_step(lang),
        }

    def __str__(self) -> str:
        return self.line()


def _sentence(text: str) -> str:
    return text if text.endswith(("?", "!", ".")) else text + "."
