"""The files of an export: each grows as FILE.part and gets its name when it is complete."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from simpang_gateway.errors import SimpangError
from simpang_gateway.files import describe
from simpang_protocol.schema import SCHEMAS

from .parquet import Parquet, need_pyarrow
from .records import Record
from .times import Render
from .writers import Csv, JsonLines, Writer

CSV, JSONL, PARQUET = "csv", "jsonl", "parquet"
FORMATS = (CSV, JSONL, PARQUET)


@dataclass(frozen=True, slots=True)
class Style:
    """How records are written: format, site, and what times look like."""

    format: str
    site: str
    render: Render


class _File:
    """One file in the making."""

    def __init__(self, path: Path, make: Callable[[TextIO | None, Path], Writer], *, text: bool) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        # newline="": the writers say themselves how a line ends.
        self._text = open(self.part, "w", encoding="utf-8", newline="") if text else None  # noqa: SIM115
        self.writer = make(self._text, self.part)

    def close(self) -> None:
        self.writer.close()
        if self._text is not None:
            self._text.close()

    def finish(self) -> None:
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)


class Outputs:
    """Where records go. `out` None is standard output; a folder gets one file for each stream.

    Raises SimpangError where that cannot be: export.one_stream, .needs_file, .exists, .no_parquet.
    """

    def __init__(self, style: Style, out: Path | None, schema: int | None, *, force: bool) -> None:
        self._style = style
        self._out = out
        self._schema = schema
        self._force = force
        self._files: dict[str, _File] = {}
        self._folder = out is not None and out.is_dir()
        self._plain: Writer | None = None
        if style.format == PARQUET:
            if out is None:
                raise SimpangError("export.needs_file", format="Parquet")
            need_pyarrow()
        if style.format != JSONL and schema is None and not self._folder:
            raise SimpangError("export.one_stream", format=style.format)
        if out is None:
            self._plain = self._make(sys.stdout, None, schema)
        elif not self._folder:
            # So that an export without a record is an empty file with its header, not nothing.
            self._open("", out, schema)

    @property
    def paths(self) -> list[Path]:
        """The files, as they are called when they are complete."""
        return [file.path for file in self._files.values()]

    @property
    def parts(self) -> list[Path]:
        """The files in the making."""
        return [file.part for file in self._files.values() if file.part.exists()]

    def add(self, record: Record) -> bool:
        """Write a record; False where this format has no place for one that cannot be decoded.

        Raises SimpangError export.unwritable, .exists; OSError for standard output.
        """
        if record.content is None and self._style.format != JSONL:
            return False
        if self._plain is not None:
            self._plain.add(record)
            return True
        name = (record.stream or "unknown") if self._folder else ""
        file = self._files.get(name)
        if file is None:
            assert self._out is not None
            path = self._out / f"{name}.{self._style.format}"
            file = self._open(name, path, record.row.schema)
        try:
            file.writer.add(record)
        except OSError as error:
            raise _unwritable(file, error) from error
        return True

    def finish(self) -> None:
        """Complete every file. Raises SimpangError export.unwritable; OSError for standard output."""
        self.close()
        for file in self._files.values():
            try:
                file.finish()
            except OSError as error:
                raise _unwritable(file, error) from error

    def close(self) -> None:
        """End every file as it is, without its name: readable as far as it goes. Raises as `finish`."""
        if self._plain is not None:
            self._plain.close()
            sys.stdout.flush()
        for file in self._files.values():
            try:
                file.close()
            except OSError as error:
                raise _unwritable(file, error) from error

    def _open(self, name: str, path: Path, schema: int | None) -> _File:
        if path.exists() and not self._force:
            raise SimpangError("export.exists", path=path)
        try:
            file = _File(
                path,
                lambda text, part: self._make(text, part, schema),
                text=self._style.format != PARQUET,
            )
        except OSError as error:
            raise SimpangError("export.unwritable", path=path, error=describe(error), part="-") from error
        self._files[name] = file
        return file

    def _make(self, text: TextIO | None, path: Path | None, schema: int | None) -> Writer:
        style = self._style
        if style.format == JSONL:
            assert text is not None
            return JsonLines(text, style.site, style.render)
        assert schema is not None
        if style.format == CSV:
            assert text is not None
            return Csv(text, SCHEMAS[schema], style.site, style.render)
        assert path is not None
        return Parquet(path, SCHEMAS[schema], style.site)


def _unwritable(file: _File, error: OSError) -> SimpangError:
    return SimpangError("export.unwritable", path=file.path, error=describe(error), part=file.part)
