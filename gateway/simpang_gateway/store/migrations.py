"""Brings the file of an earlier release up to date, by sqlite-utils: imported only where there is one."""

import sqlite3
from collections.abc import Callable, Mapping

from sqlite_utils import Database

from . import files
from .errors import StoreDamaged
from .schema import VERSION, transaction

Step = Callable[[Database], None]


def _count_gone(db: Database) -> None:
    """Note in `gone` how many ids up to the newest have no row: so the rows need not be counted again."""
    newest = db.execute("select coalesce(max(id), 0) from record").fetchone()[0]
    db.table("meta").insert({"key": "gone", "value": newest - db.table("record").count}, replace=True)


def _begin_salvage(db: Database) -> None:
    """Leave alone what was moved aside before: its ids were given once more since."""
    path = db.execute("select file from pragma_database_list where name = 'main'").fetchone()[0]
    before = max(files.unsalvaged(path, 0), default=0) if path else 0
    db.table("meta").insert({"key": "salvaged", "value": before}, replace=True)


STEPS: Mapping[int, Step] = {1: _count_gone, 2: _begin_salvage}
"""STEPS[n] leads from version n to n + 1."""


def migrate(
    connection: sqlite3.Connection, path: str, steps: Mapping[int, Step] = STEPS, to: int = VERSION
) -> None:
    """Bring the tables to version `to`, each step with its number in one transaction.

    The version is read inside the transaction: nobody can have taken the step meanwhile.

    Args:
        connection: in autocommit mode, with no transaction open.
        path: the file, for errors.
        steps, to: for tests.

    Raises:
        StoreDamaged: the file has a version that no release ever wrote.
        sqlite3.Error: a step failed; the file is as it was before that step.
    """
    made_of = connection.text_factory
    connection.text_factory = str
    try:
        # In a transaction that is open already sqlite-utils makes savepoints: it never commits by itself.
        db = Database(connection, recursive_triggers=False, execute_plugins=False)
        while True:
            with transaction(connection):
                found = connection.execute("pragma user_version").fetchone()[0]
                if found == to:
                    return
                if found not in steps:
                    raise StoreDamaged(path, f"its header says version {found}, which has no next one")
                steps[found](db)
                if not connection.in_transaction:
                    raise AssertionError("a step has ended its transaction")
                db.table("meta").insert({"key": "schema", "value": found + 1}, replace=True)
                connection.execute(f"pragma user_version = {found + 1}")
    finally:
        connection.text_factory = made_of
