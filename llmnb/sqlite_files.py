"""What every room needs to know of SQLite's files: which file is open, why one fails, and how to let go of one."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

Identity = tuple[int, int]

_TRIES = 4
_PAUSE_S = 0.01


def identity(path: Path | str) -> Identity | None:
    """Which file is under a name now, or None. Another one than before was put there in its place."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def create(path: Path) -> None:
    """Makes an empty file (0600) where there is none, and its folder (0700).

    A file that is there is not even opened: to close it again would take away the locks of every connection that this
    process has to it, and another process could delete the log under them.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def leak(connection: sqlite3.Connection) -> None:
    """Keeps a connection from ever being closed: one of the parent's in a forked child, or one whose file is gone.

    Closing would delete, by name, the -wal of the file that took its place.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code of an error, or None when Python's sqlite3 raised it of its own."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def is_corrupt(error: BaseException) -> bool:
    """Whether SQLite says that the file's content, and not its surroundings, is the trouble."""
    return isinstance(error, sqlite3.Error) and primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def open_reader(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection that only reads, usable from any thread, also on a file system that cannot be written.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    for tries_left in reversed(range(_TRIES)):
        connection = _read_only(path, "mode=ro", busy_timeout_s)
        try:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if primary_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            if not (tries_left and os.access(path.parent, os.W_OK)):
                break
            time.sleep(_PAUSE_S)  # somebody is making the file: what is seen of its log may seem to be left by a crash
        except BaseException:
            connection.close()
            raise
    # a read-only folder: SQLite cannot make the shared-memory file, and nobody can be writing. What is written all the
    # same, this connection never sees
    return _read_only(path, "immutable=1", busy_timeout_s)


def _read_only(path: Path, how: str, busy_timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?{how}", uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )


def is_damaged(path: Path) -> bool:
    """Whether SQLite finds fault with the whole file; no file is a sound one."""
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok"
    except sqlite3.DatabaseError as error:
        return is_corrupt(error)


def remove(path: Path) -> None:
    """Deletes a database with its log; the log goes first, lest a new file find it."""
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.remove(f"{path}{suffix}")
