"""Writes calls into a ledger in PostgreSQL: one connection a process, many rows in one message."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import MISSING, fields
from functools import lru_cache
from itertools import groupby
from typing import Any

from llmnb.errors import StoreBusy, StoreError
from llmnb.ledger import sessions
from llmnb.ledger.costs import StoredCosts
from llmnb.ledger.postgres.connection import BUSY_TIMEOUT_S, FOLD_LOCK, LOCK, PostgresConnection
from llmnb.ledger.postgres.dialect import in_postgres
from llmnb.ledger.postgres.migrations import migrate
from llmnb.ledger.schema import COLUMNS
from llmnb.ledger.sql import Store
from llmnb.places import PostgresPlace
from llmnb.records import Call

_ROWS_AT_ONCE = 200


@lru_cache(maxsize=128)
def _upsert(names: tuple[str, ...]) -> tuple[str, str]:
    """What stands before the values of rows with these columns, and what after them.

    The condition: what comes late (from a spool) must not undo what is on the books already.
    """
    changed = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name != "uid")
    end = in_postgres(f"""
        ON CONFLICT (uid) DO UPDATE SET {changed} WHERE excluded.attempts > calls.attempts
        OR excluded.attempts = calls.attempts AND (excluded.status <> 'running' OR calls.status = 'running')
    """)
    return in_postgres(f"INSERT INTO calls ({', '.join(names)}) VALUES "), end  # noqa: S608 - our own names


# emptied before they are dropped: budgets subtract what is written over, and not what is deleted
_EMPTY_CHILDREN = """
    UPDATE calls SET cost_nanousd = 0, input_tokens = 0, cache_read_tokens = 0, cache_write_5m_tokens = 0,
    cache_write_1h_tokens = 0, cache_write_unsplit_tokens = 0, output_tokens = 0
    WHERE parent_uid = %s AND NOT is_call
"""
_DROP_CHILDREN = "DELETE FROM calls WHERE parent_uid = %s AND NOT is_call"


class PostgresLedger(Store):
    """The ledger in the database at `place`, ready to be written from any thread, and again after a fork.

    Raises:
        MissingExtra: psycopg is not installed.
        StoreReadOnly: a newer llmnb wrote it.
        StoreError: it cannot be reached or written.
    """

    def __init__(self, place: PostgresPlace, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._place = place
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()  # reentrant: a finalizer may record a call in the middle of a write
        self._upkeep_lock = threading.Lock()
        self._connection: PostgresConnection | None = None
        _ledgers.add(self)
        with self._lock:
            self._connected()

    @property
    def path(self) -> PostgresPlace:
        """The database."""
        return self._place

    def write_all(self, records: Collection[tuple[Call, Sequence[Call]]]) -> None:
        """Inserts calls with their child rows or updates them by their uids, in one transaction (see `Store`).

        Raises:
            StoreError: they were not written, because of the store.
            psycopg.DataError, psycopg.IntegrityError: they were not, because a field holds what no column can.
        """
        with self._lock, self._transaction() as connection:
            # shared: many write at once, while nobody is alone
            connection.run(f"BEGIN; SELECT pg_advisory_xact_lock_shared({LOCK})")
            write(connection, records)

    def sweep(self) -> int:
        """Marks rows that dead processes left `running` as `interrupted`; the number of rows.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._lock:
            return 0 if self._connection is None else sessions.sweep(self._connected())

    @contextmanager
    def transaction(self, *, reading: bool = False) -> Generator[PostgresConnection]:
        """One transaction on the connection (see `Store`).

        Raises:
            StoreBusy: others wrote for longer than the busy timeout; nothing was done.
            StoreError: the store cannot be read or written, or this thread is inside another transaction.
        """
        with self._lock, self._transaction() as connection:
            connection.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _transaction(self) -> Generator[PostgresConnection]:
        connection = self._connected()
        if connection.in_transaction:  # a finalizer in the middle of one
            raise StoreBusy(f"the ledger {self.path} is being written by this thread", path=str(self.path))
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def snapshot(self) -> PostgresConnection:
        """A connection of its own that sees the ledger as it is now, before the transaction that is open.

        Raises:
            StoreError: the store cannot be read.
        """
        connection = PostgresConnection(self._place)
        try:
            connection.execute("BEGIN")
            connection.run("SELECT 1")  # only the first query fixes the moment
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def repricing(self) -> Generator[StoredCosts]:
        """The rows and their costs, on a connection of its own.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with closing(open_writer(self._place, self._busy_timeout_s)) as connection:
            yield StoredCosts(connection)

    @contextmanager
    def upkeep(self) -> Generator[PostgresConnection]:
        """A connection of its own for folding and pruning, one at a time in the whole team.

        Raises:
            StoreBusy: another process is folding.
            StoreError: the store cannot be read or written.
        """
        with self._upkeep_lock, closing(open_writer(self._place, self._busy_timeout_s)) as connection:
            connection.run(f"SELECT pg_advisory_lock({FOLD_LOCK})")  # given back with the connection
            connection.run("DELETE FROM rollup_edits WHERE id < (SELECT max(id) FROM rollup_edits)")
            yield connection

    def close(self) -> None:
        """Closes the connection; the next write opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _connected(self) -> PostgresConnection:
        """The connection; a new one when the old one was lost."""
        if self._connection is None or not self._connection.is_usable:
            self.close()
            self._connection = connection = open_writer(self._place, self._busy_timeout_s)
            with suppress(StoreError):  # there is no hurry, and the write that follows will tell
                sessions.sweep(connection)
        return self._connection

    def _in_child(self) -> None:
        if self._connection is not None:
            _parents.append(self._connection)  # never closed here: the server would take it for the parent's farewell
        self._connection = None
        self._lock = threading.RLock()  # another thread of the parent may have held the old one
        self._upkeep_lock = threading.Lock()


def open_writer(place: PostgresPlace, busy_timeout_s: float = BUSY_TIMEOUT_S) -> PostgresConnection:
    """A connection that may write, to a database that has the latest schema.

    Raises:
        MissingExtra: psycopg is not installed.
        StoreReadOnly: a newer llmnb wrote it.
        StoreError: it cannot be reached or written.
    """
    connection = PostgresConnection(place, busy_timeout_s=busy_timeout_s)
    try:
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


# Statements -----------------------------------------------------------------------------------------------------------


def write(connection: PostgresConnection, records: Iterable[tuple[Call, Sequence[Call]]]) -> None:
    """Inserts calls with their child rows or updates them, in the transaction that is open."""
    calls: list[Call] = []
    for call, children in records:
        calls.append(call)
        if children:
            _insert(connection, calls)
            connection.run(_EMPTY_CHILDREN, (call.uid,))
            connection.run(_DROP_CHILDREN, (call.uid,))
            calls = list(children)
    _insert(connection, calls)


def _insert(connection: PostgresConnection, calls: Iterable[Call]) -> None:
    """Writes rows in their order; neighbours that fill the same columns together."""
    for names, group in groupby(map(_filled, calls), key=tuple[str, ...]):
        begin, end = _upsert(names)
        for rows in _together(group):
            connection.insert(begin, (row.values() for row in rows), end)


def _together(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows for one statement, which may not write a row twice."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["uid"] in found or len(found) == _ROWS_AT_ONCE:
            yield list(found.values())
            found = {}
        found[row["uid"]] = row
    if found:
        yield list(found.values())


def _filled(call: Call) -> dict[str, Any]:
    """The columns of a call that are not NULL, with a sign for the one character that no text may have here."""
    row = {**_NEVER_NULL, **{name: value for name, value in vars(call).items() if value is not None}}
    for name, value in row.items():
        if isinstance(value, str) and "\0" in value:
            row[name] = value.replace("\0", "\N{SYMBOL FOR NULL}")
    return row


_NEVER_NULL = {f.name: f.default for f in fields(Call) if f.default is not None and f.default is not MISSING}

# After a fork ---------------------------------------------------------------------------------------------------------

_ledgers: weakref.WeakSet[PostgresLedger] = weakref.WeakSet()
_parents: list[object] = []


def _after_fork_in_child() -> None:
    for ledger in list(_ledgers):
        ledger._in_child()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
