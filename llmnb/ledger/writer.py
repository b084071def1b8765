"""Writes calls into the ledger: one connection a process, one transaction a call."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import MISSING, fields
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from llmnb import forks
from llmnb.errors import StoreBusy, StoreError
from llmnb.ledger import sessions
from llmnb.ledger.connection import BUSY_TIMEOUT_S, explained, in_our_words, open_writer, set_aside
from llmnb.ledger.costs import StoredCosts
from llmnb.ledger.schema import COLUMNS, TRUTHS
from llmnb.ledger.sql import Store
from llmnb.places import Place
from llmnb.records import Call
from llmnb.settings import Settings, load
from llmnb.sqlite_files import identity, is_corrupt, leak, primary_code

_SET = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name != "uid")
_ROWS_AT_ONCE = (64, 8, 1)
"""How many rows one statement may write: many have less to do each, and few texts of statements are kept prepared."""


@lru_cache(maxsize=128)
def _upsert(names: tuple[str, ...], rows: int) -> str:
    """The statement that writes so many rows of these columns; all others are NULL then."""
    row = f"({', '.join('?' * len(names))})"
    # the conditions: a late `running` (from a spool) must not undo an end on the books, unless a retry is running
    return f"""
        INSERT INTO calls ({", ".join(names)}) VALUES {", ".join([row] * rows)} ON CONFLICT (uid) DO UPDATE SET {_SET}
        WHERE excluded.status <> 'running' OR calls.status = 'running' OR excluded.attempts > calls.attempts
    """  # noqa: S608 - only our own column names are filled in


# emptied before they are dropped: budgets subtract what is written over, and not what is deleted
_EMPTY_CHILDREN = """
    UPDATE calls SET cost_nanousd = 0, input_tokens = 0, cache_read_tokens = 0, cache_write_5m_tokens = 0,
    cache_write_1h_tokens = 0, cache_write_unsplit_tokens = 0, output_tokens = 0 WHERE parent_uid = ? AND is_call = 0
"""
_DROP_CHILDREN = "DELETE FROM calls WHERE parent_uid = ? AND is_call = 0"


class Ledger(Store):
    """The ledger file at `path`, ready to be written from any thread, and again after a fork.

    Raises:
        StoreReadOnly: a newer llmnb wrote the file.
        StoreError: it cannot be opened or written.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()  # reentrant: a finalizer may record a call in the middle of a write
        self._upkeep_lock = threading.Lock()
        self._upkeep_held = False
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        _ledgers.add(self)
        with self._lock:
            self._connected()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def write_all(self, records: Collection[tuple[Call, Sequence[Call]]]) -> None:
        """Inserts calls with their child rows or updates them by their uids, in one transaction (see `Store`).

        Raises:
            StoreError: they were not written, because of the store.
            sqlite3.Error, OverflowError, UnicodeError: they were not, because a field holds what no column can.
        """
        with self._lock:
            try:
                _commit(self._connected(), records, self._busy_timeout_s)
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    self._refuse(error)
                self._set_aside()
                with in_our_words(self.path):
                    _commit(self._connected(), records, self._busy_timeout_s)

    def sweep(self) -> int:
        """Marks rows that dead processes left `running` as `interrupted`; the number of rows.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._lock, in_our_words(self.path):
            return 0 if self._connection is None else sessions.sweep(self._connection)

    @contextmanager
    def transaction(self, *, reading: bool = False) -> Generator[sqlite3.Connection]:
        """One transaction on the connection: committed at the end of the block, undone by what is raised inside.

        `reading` takes no lock: one moment of the ledger is seen, and nothing may be written.

        Raises:
            StoreBusy: another process kept the ledger locked for longer than the busy timeout; nothing was done.
            StoreError: the store cannot be read or written, or this thread is inside another transaction.
        """
        with self._lock, in_our_words(self.path):
            connection = self._connected()
            if connection.in_transaction:  # a finalizer in the middle of one
                raise StoreBusy(f"the ledger {self.path} is being written by this thread", path=str(self.path))
            _begin(connection, self._busy_timeout_s, reading=reading)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def snapshot(self) -> sqlite3.Connection:
        """A connection of its own that sees the ledger as it is now, before the transaction that is open.

        Raises:
            StoreError: the store cannot be read.
        """
        with in_our_words(self.path):
            connection = open_writer(self.path)
            try:
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM calls").fetchone()  # only the first read fixes the moment
            except BaseException:
                connection.close()
                raise
            return connection

    @contextmanager
    def repricing(self) -> Generator[StoredCosts]:
        """The rows and their costs, on a connection of its own: the work may take long, and no call waits for it.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with in_our_words(self.path), closing(open_writer(self.path, self._busy_timeout_s)) as connection:
            yield StoredCosts(connection)

    @contextmanager
    def upkeep(self) -> Generator[sqlite3.Connection]:
        """A connection of its own for folding and pruning, one at a time in this process; no call waits for it.

        A fork waits for the end: keep it short.

        Raises:
            StoreError: the store cannot be read or written.
        """
        with self._upkeep_lock, in_our_words(self.path), closing(open_writer(self.path, self._busy_timeout_s)) as found:
            yield found

    def close(self) -> None:
        """Closes the connection; the next write opens it again."""
        with self._lock:
            if self._connection is not None and self._file == identity(self.path):
                self._connection.close()
            elif self._connection is not None:
                leak(self._connection)  # closing would delete, by name, the -wal of the file that took its place
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        """The connection; a new one when the file was moved, replaced or deleted under the old one."""
        if self._connection is not None and self._file == identity(self.path):
            return self._connection
        self.close()
        self._connection = connection = open_writer(self.path, self._busy_timeout_s)
        self._file = identity(self.path)
        try:
            sessions.sweep(connection)
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                return connection  # locked, say: there is no hurry, and the write that follows will tell
            self._set_aside()
            self._connection = connection = open_writer(self.path, self._busy_timeout_s)
            self._file = identity(self.path)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {min(_TURN_MS, int(self._busy_timeout_s * 1e3))}")
        return connection

    def _set_aside(self) -> None:
        self.close()
        with in_our_words(self.path):
            set_aside(self.path)

    def _refuse(self, error: sqlite3.DatabaseError) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise explained(error, self.path) from error
        raise error  # the row is at fault, and not the store

    def _before_fork(self) -> bool:
        """Closes the connection; whether the lock is held now, for `_in_parent` to release."""
        held = self._lock.acquire(timeout=self._busy_timeout_s + _FORK_PATIENCE_S)
        self._upkeep_held = held and self._upkeep_lock.acquire(timeout=_FORK_PATIENCE_S)
        if held and self._connection is not None and not self._connection.in_transaction:
            self.close()
        return held

    def _in_child(self) -> None:
        if self._connection is not None:
            leak(self._connection)
        self._connection = None
        self._lock = threading.RLock()  # another thread of the parent may have held the old one
        self._upkeep_lock = threading.Lock()

    def _in_parent(self) -> None:
        if self._upkeep_held:
            self._upkeep_lock.release()
        self._lock.release()


# SQLite waits for a lock in pauses that grow to 100 ms, in which others take it again and again: of eight who
# write without a pause some waited for over a second. Begun anew every few milliseconds, all of them get their turn.
_TURN_MS = 10


def _begin(connection: sqlite3.Connection, patience_s: float, *, reading: bool = False) -> None:
    """Begins a transaction that has the write lock, or that sees one moment of the ledger."""
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
            if reading:
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
            return
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise


def _commit(
    connection: sqlite3.Connection, records: Collection[tuple[Call, Sequence[Call]]], patience_s: float
) -> None:
    if connection.in_transaction:
        raise StoreError("a call was recorded while this thread was writing another; it is written right after it")
    try:
        _begin(connection, patience_s)
        calls: list[Call] = []
        for call, children in records:
            calls.append(call)
            if children:
                _write(connection, calls)
                connection.execute(_EMPTY_CHILDREN, (call.uid,))
                connection.execute(_DROP_CHILDREN, (call.uid,))
                calls = list(children)
        _write(connection, calls)
        connection.execute("COMMIT")
    except BaseException:  # also KeyboardInterrupt: no transaction may stay open
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write(connection: sqlite3.Connection, calls: Iterable[Call]) -> None:
    """Writes rows in their order; neighbours that fill the same columns together."""
    for names, group in groupby(map(_filled, calls), key=tuple[str, ...]):
        rows = list(group)
        begin = 0
        for size in _ROWS_AT_ONCE:
            while len(rows) - begin >= size:
                values = [value for row in rows[begin : begin + size] for value in row.values()]
                connection.execute(_upsert(names, size), values)
                begin += size


def _filled(call: Call) -> dict[str, Any]:
    """The columns of a call that are not NULL.

    Without None and truth values: for each, sqlite3 looks for an adapter, which takes as long as all else it does.
    """
    row = {**_NEVER_NULL, **vars(call)}
    if None in row.values():
        row = {name: value for name, value in row.items() if value is not None}
    for name in TRUTHS:
        row[name] = int(row[name])
    return row


_NEVER_NULL = {f.name: f.default for f in fields(Call) if f.default is not None and f.default is not MISSING}


# One ledger a process and path, also after a fork ---------------------------------------------------------------------

_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()


# SQLite keeps the locks of a process in memory of its own, which a forked child inherits, but not the locks. What the
# child opens would lean on them: others would delete the log under it, and a write that the parent had under way would
# never end there. So no connection is open at the moment of a fork.

_FORK_PATIENCE_S = 1.0
_closed_for_fork: list[Ledger] = []


def _before_fork() -> None:
    _opening.acquire()
    _closed_for_fork[:] = [ledger for ledger in forks.all_of(_ledgers) if ledger._before_fork()]  # pyright: ignore[reportPrivateUsage]


def _after_fork_in_parent() -> None:
    while _closed_for_fork:
        _closed_for_fork.pop()._in_parent()  # pyright: ignore[reportPrivateUsage]
    _opening.release()


def _after_fork_in_child() -> None:
    global _opening
    _closed_for_fork.clear()
    _opening = threading.RLock()
    for ledger in list(_ledgers):
        ledger._in_child()  # pyright: ignore[reportPrivateUsage]


_opening = threading.RLock()  # reentrant: a finalizer may record a call while the ledger is being opened
_opened: dict[Place, Store] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def new_ledger(place: Place, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Store:
    """A ledger on a connection of its own, which waits so long for others that write.

    Raises:
        StoreReadOnly, StoreError: as `open_ledger`.
    """
    if not isinstance(place, Path):
        from llmnb.ledger.postgres.ledger import PostgresLedger

        return PostgresLedger(place, busy_timeout_s=busy_timeout_s)
    return Ledger(place, busy_timeout_s=busy_timeout_s)


def open_ledger(path: Place | None = None, *, settings: Settings | None = None) -> Store:
    """The ledger of this process, created when it is missing; without `path` the one of the settings.

    Raises:
        StoreReadOnly: a newer llmnb wrote the file.
        StoreError: it cannot be opened or written.
    """
    where = path.expanduser().absolute() if isinstance(path, Path) else path or (settings or load()).ledger_path
    with _opening:
        if where not in _opened:
            _opened[where] = new_ledger(where)
        return _opened[where]
