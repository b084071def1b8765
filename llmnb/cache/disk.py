"""Keeps the cache in a folder of this machine: diskcache writes and evicts, a plain connection reads.

Writing goes through `BytesCache`. Reading goes past diskcache, in the one statement it takes: a hit writes nothing and
opens no transaction. When an entry was used is noted later, for many at once.
"""

# pyright: reportUnknownMemberType=false
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

from llmnb import forks, locks, sqlite_files
from llmnb.cache.backends import Item, Size, together
from llmnb.cache.bytes_only import BUSY_TIMEOUT_S, MODE_RAW, BytesCache, BytesDisk, raw_bytes

_PAGE = 500
LOOK_EVERY_S = 0.02
"""A file that is deleted or replaced is noticed this much later, at most: to look takes a third of what a hit takes."""

_GET = "SELECT mode, value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
_PEEK = "SELECT mode, substr(value, 1, ?) FROM Cache WHERE key = ? AND raw = 1"
_NAMES = "SELECT rowid, key FROM Cache WHERE rowid > ? AND raw = 1 AND typeof(key) = 'text' ORDER BY rowid LIMIT ?"
_COUNT = (
    "SELECT count(*), (SELECT page_count FROM pragma_page_count), (SELECT page_size FROM pragma_page_size) FROM Cache"
)


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
        self._cache: BytesCache | None = None
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
        return raw_bytes(*row[0]) if row else None

    def peek(self, names: Sequence[str], length: int) -> list[bytes | None]:
        found = [self._ask(_PEEK, (length, name)) for name in names]
        return [rows[0][1] if rows and rows[0][0] == MODE_RAW else None for rows in found]

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
    def _written(self) -> Generator[BytesCache]:
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

    def _opened(self) -> BytesCache:
        if self._cache is not None and self._written_file == sqlite_files.identity(self._path):
            return self._cache
        self._close_cache()
        sqlite_files.create(self._path)
        if sys.platform != "win32" and self._folder.stat().st_mode & 0o077:
            self._folder.chmod(0o700)
        self._cache = BytesCache(
            str(self._folder),
            timeout=int(BUSY_TIMEOUT_S),
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
    reader = sqlite_files.open_reader(path, BUSY_TIMEOUT_S)
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
    _closed_for_fork[:] = [backend for backend in forks.all_of(_all) if backend._before_fork()]  # pyright: ignore[reportPrivateUsage]


def _after_fork_in_parent() -> None:
    while _closed_for_fork:
        _closed_for_fork.pop()._in_parent()  # pyright: ignore[reportPrivateUsage]


def _after_fork_in_child() -> None:
    _closed_for_fork.clear()
    for backend in list(_all):
        backend._in_child()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
