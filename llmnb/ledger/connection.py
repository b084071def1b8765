"""Opens the ledger's SQLite file for one writer or one reader, and says in plain words why that fails."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from llmnb import locks
from llmnb.errors import StoreBusy, StoreError, StoreReadOnly
from llmnb.ledger import migrations
from llmnb.ledger.sql import Connection
from llmnb.network_files import network_filesystem
from llmnb.places import Place
from llmnb.settings import load
from llmnb.sqlite_files import create, is_corrupt, is_damaged, open_reader, primary_code
from llmnb.trouble import LlmnbWarning, warn_once

BUSY_TIMEOUT_S = 5.0
"""How long a write waits for the writes of other processes."""

_WAL_TRIES = 50
_WAL_PAUSE_S = 0.02

_WHY = {
    sqlite3.SQLITE_BUSY: "another process kept it locked for too long; the next call tries again",
    sqlite3.SQLITE_LOCKED: "another connection kept it locked for too long; the next call tries again",
    sqlite3.SQLITE_READONLY: "the file may not be written; change its permissions or set LLMNB_HOME to another folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the folder's permissions or set LLMNB_HOME to another folder",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written (is it full?)",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; the next recorded call moves it aside and begins a new one",
    sqlite3.SQLITE_NOTADB: "the file is no database; the next recorded call moves it aside and begins a new one",
}


def explained(error: sqlite3.Error | OSError, path: Place) -> StoreError:
    """The same trouble as a `StoreError` that says what to do."""
    why = _WHY.get(primary_code(error) or -1) if isinstance(error, sqlite3.Error) else None
    if isinstance(error, OSError):
        why = "set LLMNB_HOME to a folder that can be written"
    is_busy = isinstance(error, sqlite3.Error) and primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return (StoreBusy if is_busy else StoreError)(
        f"the ledger {path} cannot be used ({error}): {why or '`llmnb doctor` may say more'}.", path=str(path)
    )


@contextmanager
def in_our_words(path: Place) -> Generator[None]:
    """Turns what SQLite and the operating system raise inside into a `StoreError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explained(error, path) from error


# Writing --------------------------------------------------------------------------------------------------------------


def open_writer(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """A connection that may write, on a file that exists, is private (0600) and has the latest schema.

    A damaged file is moved aside and a new one begun, with one warning.

    Raises:
        StoreReadOnly: a newer llmnb wrote the file.
        StoreError: it cannot be opened or written, or lies on a network file system.
    """
    _refuse_network(path)
    with in_our_words(path):
        create(path)
        try:
            return _writer(path, busy_timeout_s)
        except sqlite3.DatabaseError as error:
            if is_corrupt(error):
                set_aside(path)
            elif not _was_being_repaired(path, error):
                raise
        create(path)
        return _writer(path, busy_timeout_s)


def _refuse_network(path: Path) -> None:
    kind = network_filesystem(path)
    if kind is not None and load().network_store == "refuse":
        raise StoreError(why_not_there(path, kind), path=str(path))


def why_not_there(path: Path, kind: str) -> str:
    """Why a ledger on a network file system is not written, and what to do."""
    return (
        f"the ledger {path} lies on a network file system ({kind}), where SQLite can lose rows or damage the file. Set "
        "LLMNB_STORE_URL to sqlite:/// and a path on a local disk, or to the postgresql:// URL of a database, which is "
        "made to be shared; or, if only one machine ever uses it, set LLMNB_NETWORK_STORE=allow."
    )


def _repair_lock(path: Path) -> Path:
    return path.with_name(path.name + ".repair-lock")


def _was_being_repaired(path: Path, error: sqlite3.Error) -> bool:
    """Whether another process may have moved the files while they were opened; returns when it has finished."""
    if primary_code(error) not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) or not _repair_lock(path).exists():
        return False
    with locks.held(_repair_lock(path)):
        return True


def _writer(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    # isolation_level=None: BEGIN IMMEDIATE is written out; a deferred BEGIN lost most rows of four writers
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        _refuse_other_schemas(connection, path)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        migrations.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_other_schemas(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN")  # one snapshot: between two, another process may create the tables
    found = migrations.version(connection)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    connection.execute("COMMIT")
    if found > migrations.LATEST:
        raise StoreReadOnly(
            f"the ledger {path} was written by a newer llmnb (schema {found}, this one knows {migrations.LATEST}): it "
            "can be read but not written. Upgrade with `pip install -U llmnb`, or set LLMNB_HOME to another folder.",
            path=str(path),
        )
    if (found == 0 and tables) or (found > 0 and "migrations" not in tables):
        raise StoreError(
            f"{path} is a database of some other program. Set LLMNB_STORE_URL or LLMNB_HOME to a place of llmnb's own.",
            path=str(path),
        )


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to WAL; two processes that do so at the same moment are refused at once, whatever the busy timeout."""
    for attempt in range(_WAL_TRIES):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or attempt == _WAL_TRIES - 1:
                raise
            time.sleep(_WAL_PAUSE_S)


def set_aside(path: Path) -> Path | None:
    """Moves a damaged file to `<name>.corrupt-<time>` and says so; None when it turns out to be sound.

    Under a lock, and looked at again: another process may have moved it already and begun a new one.
    """
    with locks.held(_repair_lock(path)):
        if not is_damaged(path):
            return None
        aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")
        for suffix in ("-wal", "-shm", ""):  # a log without its file must not be found by the new one
            with suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    with suppress(LlmnbWarning):  # also where warnings are errors, the call goes on
        warn_once(
            f"corrupt {aside}",
            f"the ledger {path} was damaged; it was moved to {aside} and a new one begun. "
            "Calls go on and are recorded; totals start from zero.",
        )
    return aside


# Reading --------------------------------------------------------------------------------------------------------------


@contextmanager
def reading(path: Place) -> Generator[Connection | None]:
    """A read-only connection to the ledger, or None when there is none yet; nothing is created or migrated.

    Raises:
        StoreError: the file is there and cannot be read.
    """
    if not isinstance(path, Path):
        from llmnb.ledger.postgres import readers

        with readers.reading(path) as found:
            yield found
        return
    if not path.exists():
        yield None
        return
    with in_our_words(path), closing(open_reader(path, BUSY_TIMEOUT_S)) as connection:
        yield connection if _has_calls(connection) else None


def _has_calls(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'calls'").fetchone()
    return found is not None
