"""The configuration without what validates it: pydantic takes 12 MB that a running gateway never needs again.

A gateway process calls `validate_elsewhere` before it imports `config`. A child then validates each file
with pydantic, and ends; here the same classes stand on the plain ones below, made from what the child says.
Every other program imports `config` as it is.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

from .errors import SimpangError
from .files import describe

_TIMEOUT_S = 60


class _Mode:
    elsewhere = False


def validate_elsewhere() -> None:
    """Keep pydantic out of this process. To be called before `config` is imported."""
    _Mode.elsewhere = True


def elsewhere() -> bool:
    """Whether a child validates."""
    return _Mode.elsewhere


class Validation:
    """A child that validates a file, from the moment when it is made."""

    def __init__(self, path: Path) -> None:
        """Raises SimpangError: config.unreadable, where no process can be started."""
        self._path = path
        # Whatever lies in the present folder is none of its modules.
        path_only = "-I" if sys.flags.isolated else "-P"
        command = [sys.executable, path_only, "-m", f"{__package__}.validated", str(path)]
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            raise SimpangError("config.unreadable", file=path, error=describe(error)) from error

    def result(self) -> Mapping[str, Any]:
        """Wait for it; return the tables. Raises SimpangError: what `config.load` raises."""
        try:
            said, _ = self._child.communicate(timeout=_TIMEOUT_S)
            found = json.loads(said)
        except (subprocess.TimeoutExpired, ValueError) as error:
            self._child.kill()
            self._child.wait()
            words = f"its validation ended with {self._child.returncode}"
            raise SimpangError("config.unreadable", file=self._path, error=words) from error
        if "code" in found:
            raise SimpangError(found["code"], **found["arguments"])
        tables: Mapping[str, Any] = found["tables"]
        return tables


# ---- what the classes of `config` stand on in a gateway process


class BaseModel:
    """A table whose values were validated by somebody else. Frozen."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise ValueError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Self:
        """Return the table that pydantic has written as `values`."""
        kinds = cls.__annotations__
        return cls(**{name: _restored(kinds[name], value) for name, value in values.items()})

    def model_copy(self, *, update: Mapping[str, object]) -> Self:
        """Return a copy with some values changed."""
        return type(self)(**{**self.__dict__, **update})


def _restored(kind: object, value: Any) -> Any:
    for part in _parts(kind):
        if isinstance(part, type) and issubclass(part, BaseModel) and value is not None:
            many = isinstance(value, list)
            return [part.restored(one) for one in value] if many else part.restored(value)
        if part is Path and isinstance(value, str):
            return Path(value)
    return value


def _parts(kind: object) -> Iterator[object]:
    """Yield the plain types that an annotation is made of."""
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        arguments = arguments[:1]
    if not arguments:
        yield kind
    for argument in arguments:
        yield from _parts(argument)


def _nothing(*_: object, **__: object) -> None:
    """Stands for what only validation asks for."""


AfterValidator = BeforeValidator = ConfigDict = Field = _nothing


def model_validator(**_: object) -> Callable[[Any], Any]:
    """Leave a validator as it is: nobody calls it."""
    return lambda function: function


class ValidationError(ValueError):
    """Never raised here."""


class ValidationInfo:
    """Only named."""
