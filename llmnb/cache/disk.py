"""Keeps the cache in a folder of this machine: diskcache writes and evicts, a plain connection reads.

diskcache's own `Disk` pickles what is not bytes, and unpickles whatever it finds (CVE-2025-69872). `BytesDisk` does
neither: values are bytes in the database itself, everything else is refused. Reading goes past diskcache, in the one
statement it takes: a hit writes nothing and opens no transaction. When an entry was used is noted later, for many at
once.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportIncompatibleMethodOverride=false
# (diskcache has no types)

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskcache

from llmnb import locks, sqlite_files
from llmnb.cache.backends import BYTES_TOGETHER, ITEMS_TOGETHER, Item, Pickled, Size, together

_MODE_RAW = 1
"""diskcache's mark of a value that stands in the database as it is; also in `_PUT`."""

_BUSY_TIMEOUT_S = 5.0
_PAGE = 500
EXPIRE_EVERY_S = 60.0
"""What has expired is not found, and is deleted at most that often: to look for it takes as long as to write three."""

LOOK_EVERY_S = 0.02
"""A file that is deleted or replaced is noticed this much later, at most: to look takes a third of what a hit takes."""

_GET = "SELECT mode, value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
_PEEK = "SELECT mode, substr(value, 1, ?) FROM Cache WHERE key = ? AND raw = 1"
_NAMES = "SELECT rowid, key FROM Cache WHERE rowid > ? AND raw = 1 AND typeof(key) = 'text' ORDER BY rowid LIMIT ?"
_TOUCH = "UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1"
_PUT = """
    INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, size, mode, value)
    VALUES {}
    ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, expire_time = excluded.expire_time,
    access_time = excluded.access_time, access_count = 0, tag = NULL, size = 0, mode = excluded.mode, filename = NULL,
    value = excluded.value
"""
_PUTS = {rows: _PUT.format(", ".join(["(?, 1, ?, ?, ?, 0, 0, 1, ?)"] * rows)) for rows in (ITEMS_TOGETHER, 4, 1)}
"""By how many items they keep. At each step of a statement Python's lock changes hands where another thread waits for
it, which costs more than the step itself: so many rows are one step."""
_COUNT = (
    "SELECT count(*), (SELECT page_count FROM pragma_page_count), (SELECT page_size FROM pragma_page_size) FROM Cache"
)


class BytesDisk(diskcache.Disk):
    """Takes text as keys and bytes as values, and never pickles or unpickles anything."""

    def put(self, key: object) -> tuple[Any, bool]:
        if type(key) is not str:
            raise TypeError(f"a key is a text, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if not raw or type(key) is not str:
            raise Pickled("a key that is no text")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, None, Any]:
        if read or type(value) is not bytes:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        return 0, _MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> bytes:
        return _bytes(mode, value)

    def remove(self, file_path: Any) -> None:
        """Nothing: there are no files of ours, and a planted name must not delete anybody's."""


def _bytes(mode: Any, value: Any) -> bytes:
    if mode != _MODE_RAW or type(value) is not bytes:
        raise Pickled("a value that is no bytes")
    return value


class _Cache(diskcache.Cache):
    """diskcache on one connection of the process, which can be closed before a fork."""

    _connection: sqlite3.Connection | None = None
    _culled_at = -EXPIRE_EVERY_S

    @property
    def _con(self) -> sqlite3.Connection:
        if self._connection is None:
            # isolation_level=None: diskcache begins its transactions itself
            self._connection = sqlite3.connect(
                Path(self._directory, "cache.db"),
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.execute("PRAGMA synchronous = NORMAL")
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def leak(self) -> None:
        """Lets go of the connection without closing it."""
        if self._connection is not None:
            sqlite_files.leak(self._connection)
        self._connection = None

    @property
    def is_writing(self) -> bool:
        """Whether a transaction is open."""
        return self._connection is not None and self._connection.in_transaction

    def touch_all(self, names: Iterable[str]) -> None:
        now = time.time()
        with self.transact():
            self._con.executemany(_TOUCH, [(now, name) for name in names])

    def put_all(self, first: list[Item], rest: Iterator[list[Item]], limit_bytes: int) -> None:
        """Keeps items with few statements, where diskcache's `set` looks each of them up first, for files to delete.

        In one transaction as a rule: others wait while very much is written.
        """
        items: list[Item] | None = first
        while items is not None:
            size = 0
            with self.transact():
                while items is not None and size <= BYTES_TOGETHER:
                    self._put(items)
                    size += sum([len(item.data) for item in items])
                    items = next(rest, None)
        if self._is_larger_than(limit_bytes) or time.monotonic() - self._culled_at >= EXPIRE_EVERY_S:
            self._culled_at = time.monotonic()
            self.cull()

    def _put(self, items: list[Item]) -> None:
        now, begin = time.time(), 0
        for rows, statement in _PUTS.items():
            while len(items) - begin >= rows:
                values: list[object] = []
                for item in items[begin : begin + rows]:
                    expires = None if item.ttl_s is None else now + item.ttl_s
                    values += (item.name, now, expires, now, item.data)
                self._con.execute(statement, values)
                begin += rows

    def _is_larger_than(self, limit_bytes: int) -> bool:
        [[pages]] = self._con.execute("PRAGMA page_count")
        return pages * self._page_size > limit_bytes  # without files, this is diskcache's `volume`


class DiskBackend:
    """A folder (0700) with one SQLite file, of at most about `limit_bytes`: then the least recently used goes.

    Several processes may use it at once.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._path = folder / "cache.db"
        self._path_text = str(self._path)  # asked for at every look, and a `Path` makes its text anew each time
        self._limit_bytes = limit_bytes
        self._claims: int | None = None  # the descriptor of the file whose bytes are locked
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._reader: sqlite3.Connection | None = None
        self._read_file: sqlite_files.Identity | None = None
        self._looked_at = 0.0
        self._cache: _Cache | None = None
        self._written_file: sqlite_files.Identity | None = None
        # two locks: who asks does not wait for a commit. Reentrant: a finalizer may ask in the middle of asking
        self._reading = threading.RLock()
        self._writing = threading.RLock()
        self._claiming = threading.RLock()
        self._claimed: set[int] = set()  # the bytes that are locked

    @property
    def where(self) -> str:
        return str(self._folder)

    # Reading ----------------------------------------------------------------------------------------------------------

    def get(self, name: str) -> bytes | None:
        row = self._ask(_GET, (name, time.time()))
        return _bytes(*row[0]) if row else None

    def peek(self, names: Sequence[str], length: int) -> list[bytes | None]:
        found = [self._ask(_PEEK, (length, name)) for name in names]
        return [rows[0][1] if rows and rows[0][0] == _MODE_RAW else None for rows in found]

    def names(self) -> Iterator[str]:
        last = 0
        while rows := self._ask(_NAMES, (last, _PAGE)):
            last = rows[-1][0]
            yield from (name for _, name in rows)

    def size(self) -> Size:
        rows = self._ask(_COUNT, ())
        items, pages, page_bytes = rows[0] if rows else (0, 0, 0)
        return Size(items, pages * page_bytes, self._limit_bytes)

    def _ask(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._reading:
            connection, now = self._reader, time.monotonic()
            if connection is None or now - self._looked_at >= LOOK_EVERY_S:
                file = sqlite_files.identity(self._path_text)
                connection = connection if file == self._read_file else self._reopened(file)
                self._looked_at = now
            return [] if connection is None else connection.execute(sql, parameters).fetchall()

    def _reopened(self, now: sqlite_files.Identity | None) -> sqlite3.Connection | None:
        """A new connection when the file was replaced under the old one, None when there is no file."""
        self._close_reader()
        if now is not None and (reader := _reader(self._path)) is not None:
            self._reader, self._read_file = reader, now
        return self._reader

    def _close_reader(self) -> None:
        if self._reader is not None and self._read_file == sqlite_files.identity(self._path):
            self._reader.close()
        elif self._reader is not None:
            sqlite_files.leak(self._reader)
        self._reader = self._read_file = None

    # Writing ----------------------------------------------------------------------------------------------------------

    def put(self, items: Iterable[Item]) -> None:
        groups = together(items)
        if (first := next(groups, None)) is not None:
            with self._written() as cache:
                cache.put_all(first, groups, self._limit_bytes)

    def delete(self, names: Iterable[str]) -> int:
        if not self._path.exists():
            return 0
        with self._written() as cache, cache.transact():
            return sum([cache.delete(name) for name in names])

    def touch(self, names: Iterable[str]) -> None:
        if self._path.exists():
            with self._written() as cache:
                cache.touch_all(names)

    @contextmanager
    def _written(self) -> Generator[_Cache]:
        """The cache, for writing; a damaged file is deleted first, and a new one begun."""
        with self._writing:
            try:
                cache = self._opened()
            except sqlite3.DatabaseError as error:
                if not sqlite_files.is_corrupt(error):
                    raise
                self._begin_anew()
                cache = self._opened()
            try:
                yield cache
            except sqlite3.DatabaseError as error:
                if sqlite_files.is_corrupt(error):
                    self._begin_anew()
                raise

    def _opened(self) -> _Cache:
        if self._cache is not None and self._written_file == sqlite_files.identity(self._path):
            return self._cache
        self._close_cache()
        sqlite_files.create(self._path)
        if sys.platform != "win32" and self._folder.stat().st_mode & 0o077:
            self._folder.chmod(0o700)
        self._cache = _Cache(
            str(self._folder),
            timeout=int(_BUSY_TIMEOUT_S),
            disk=BytesDisk,
            eviction_policy="least-recently-used",
            size_limit=self._limit_bytes,
            cull_limit=0,  # once for many entries, see `put`
            statistics=0,
            tag_index=0,
            sqlite_mmap_size=0,  # a file cut off under a memory map kills the process
        )
        self._written_file = sqlite_files.identity(self._path)
        return self._cache

    def _close_cache(self) -> None:
        if self._cache is not None and self._written_file == sqlite_files.identity(self._path):
            self._cache.close()
        elif self._cache is not None:
            self._cache.leak()
        self._cache = self._written_file = None

    def _begin_anew(self) -> None:
        """Deletes a damaged file; under a lock and looked at again, as another process may have done so already."""
        with locks.held(self._folder / "repair.lock"), self._reading:
            self._close_cache()
            self._close_reader()
            if sqlite_files.is_damaged(self._path):
                sqlite_files.remove(self._path)

    # Claims -----------------------------------------------------------------------------------------------------------

    def claim(self, name: str) -> bool:
        place = _place(name)
        with self._claiming:
            if self._claims is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._claims = os.open(self._folder / "asking.lock", os.O_RDWR | os.O_CREAT, 0o600)
            is_ours = locks.try_lock_byte(self._claims, place)
            if is_ours:
                self._claimed.add(place)
        return is_ours

    def renew(self, names: Iterable[str]) -> None:
        """Nothing: the operating system frees them when the process dies."""

    def release(self, names: Iterable[str]) -> None:
        places = set(map(_place, names))
        with self._claiming:
            self._claimed -= places
            if self._claims is not None:
                locks.unlock_bytes(self._claims, places, self._claimed)

    # Closing ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._writing, self._reading:
            self._close_cache()
            self._close_reader()
        with self._claiming:  # else another thread might unlock what has the descriptor's number next
            if self._claims is not None:
                os.close(self._claims)
            self._claims = None
            self._claimed.clear()

    def _before_fork(self) -> bool:
        """Closes the connections; whether the locks are held now, for `_in_parent` to release."""
        if not self._writing.acquire(timeout=_FORK_PATIENCE_S):
            return False
        if not self._reading.acquire(timeout=_FORK_PATIENCE_S):
            self._writing.release()
            return False
        self._close_reader()
        if self._cache is not None and not self._cache.is_writing:
            self._close_cache()
        return True

    def _in_parent(self) -> None:
        self._reading.release()
        self._writing.release()

    def _in_child(self) -> None:
        if self._cache is not None:
            self._cache.leak()
        if self._reader is not None:
            sqlite_files.leak(self._reader)
        if self._claims is not None:
            os.close(self._claims)  # the locks are the parent's, and stay
            self._claims = None
        self._begin()


def _reader(path: Path) -> sqlite3.Connection | None:
    """None while another process is making the file."""
    reader = sqlite_files.open_reader(path, _BUSY_TIMEOUT_S)
    if reader.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'Cache'").fetchone() is None:
        reader.close()
        return None
    return reader


def _place(name: str) -> int:
    """The byte whose lock stands for a name. Two names may share one: then one waits for the other in vain, once."""
    return zlib.crc32(name.encode()) & 0x7FFF_FFFF


# Forks: no connection is open at the moment of one, see llmnb.ledger.writer -------------------------------------------

_FORK_PATIENCE_S = 6.0
_all: weakref.WeakSet[DiskBackend] = weakref.WeakSet()
_closed_for_fork: list[DiskBackend] = []


def _before_fork() -> None:
    _closed_for_fork[:] = [backend for backend in list(_all) if backend._before_fork()]  # pyright: ignore[reportPrivateUsage]


def _after_fork_in_parent() -> None:
    while _closed_for_fork:
        _closed_for_fork.pop()._in_parent()  # pyright: ignore[reportPrivateUsage]


def _after_fork_in_child() -> None:
    _closed_for_fork.clear()
    for backend in list(_all):
        backend._in_child()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
