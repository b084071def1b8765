"""diskcache without its pickles, and with few statements for many entries: what the cache on disk writes through.

diskcache's own `Disk` pickles what is not bytes, and unpickles whatever it finds (CVE-2025-69872). `BytesDisk` does
neither: values are bytes in the database itself, everything else is refused.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportIncompatibleMethodOverride=false
# (diskcache has no types)

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import diskcache

from llmnb import sqlite_files
from llmnb.cache.backends import BYTES_TOGETHER, ITEMS_TOGETHER, Item, Pickled

MODE_RAW = 1
"""diskcache's mark of a value that stands in the database as it is; also in `_PUT`."""

BUSY_TIMEOUT_S = 5.0
EXPIRE_EVERY_S = 60.0
"""What has expired is not found, and is deleted at most that often: to look for it takes as long as to write three."""

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
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> bytes:
        return raw_bytes(mode, value)

    def remove(self, file_path: Any) -> None:
        """Nothing: there are no files of ours, and a planted name must not delete anybody's."""


def raw_bytes(mode: Any, value: Any) -> bytes:
    if mode != MODE_RAW or type(value) is not bytes:
        raise Pickled("a value that is no bytes")
    return value


class BytesCache(diskcache.Cache):
    """diskcache on one connection of the process, which can be closed before a fork."""

    _connection: sqlite3.Connection | None = None
    _culled_at = -EXPIRE_EVERY_S

    @property
    def _con(self) -> sqlite3.Connection:
        if self._connection is None:
            # isolation_level=None: diskcache begins its transactions itself
            self._connection = sqlite3.connect(
                Path(self._directory, "cache.db"),
                timeout=BUSY_TIMEOUT_S,
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
