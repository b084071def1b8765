"""A number for each key of a run, with memory for so many of them only: the others are in a temporary SQLite file.

Of a key that was never set a filter of some bits says so, mostly, without a look into the file.

What is there is made of the lines of the run on disk, and can be made again; so it is written without journal or sync,
is nobody else's, and is gone with the process, however that ends. When it fails (a full disk), all goes on in memory.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from threading import RLock

from llmnb.trouble import quietly

IN_MEMORY = 120_000
"""Runs up to that size need no file, and cost what a dict costs: some 170 bytes a row."""
AT_ONCE = 2_000
"""So many are written together: each is a page of its own, since keys come in no order. It takes some 10 ms."""
_CACHE_KB = 4_096
_FILTER_BYTES = 1 << 21
"""Of a million keys it is asked in vain for one in 80 that is not there; of ten million, for every other."""
_ADDRESS_BYTES = 3
"""A part of a key that names a bit of the filter. Keys are digests, and their parts as good as chance."""


class Index:
    """Numbers by keys, which are bytes; every method may be called from any thread.

    Args:
        again: gives all that can be found again, when the file is lost.
    """

    def __init__(self, again: Callable[[], Iterable[tuple[bytes, int]]] = tuple) -> None:
        self._again = again
        self._lock = RLock()
        self._recent: dict[bytes, int] = {}
        self._most: float = IN_MEMORY
        self._file: sqlite3.Connection | None = None
        self._filter = bytearray()

    def get(self, key: bytes) -> int:
        """Its number; 0 of one that is not there."""
        with self._lock:
            number = self._recent.get(key)
            if number is not None or self._file is None or not self._may_be_in_file(key):
                return number or 0
            try:
                row = self._file.execute("SELECT number FROM numbers WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as trouble:
                self._lose(trouble)
                return self._recent.get(key, 0)
            return 0 if row is None else row[0]

    def set(self, key: bytes, number: int) -> None:
        """Gives it a number."""
        with self._lock:
            self._recent[key] = number
            if len(self._recent) >= self._most:
                self._write(AT_ONCE)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """All of them, by number."""
        with self._lock:
            if self._file is not None:
                self._write()
        found: sqlite3.Cursor | None = None
        last, told = -1, set[bytes]()  # the highest number that was given, and whose it was
        while True:
            with self._lock:
                try:
                    if found is None and self._file is not None:  # to sort them takes room on disk, too
                        found = self._file.execute("SELECT key, number FROM numbers ORDER BY number")
                    if found is None:  # or it is lost
                        break
                    rows: list[tuple[bytes, int]] = found.fetchmany(AT_ONCE)
                except sqlite3.Error as trouble:
                    if self._file is not None:
                        self._lose(trouble)
                    break
            if not rows:
                return
            if rows[-1][1] != last:
                told = set[bytes]()
            told |= {key for key, number in rows if number == rows[-1][1]}
            last = rows[-1][1]
            yield from rows
        with self._lock:
            rest = sorted(self._recent.items(), key=lambda item: item[1])
        yield from ((key, number) for key, number in rest if number >= last and key not in told)

    def counts(self, mask: int) -> Counter[int]:
        """How many there are of each number, as far as `mask` leaves it."""
        with self._lock:
            if self._file is not None:
                self._write()
            if self._file is not None:  # unsorted, which takes no room
                try:
                    found = self._file.execute("SELECT number & ? FROM numbers", (mask,))
                    return Counter(number for (number,) in found)
                except sqlite3.Error as trouble:
                    self._lose(trouble)
            return Counter(number & mask for number in self._recent.values())

    def _write(self, most: int | None = None) -> None:
        """Writes so many of those in memory, or all: those that were set first, and mostly not again since."""
        rows = sorted(islice(self._recent.items(), most))  # in order: neighbours are on one page
        try:
            if self._file is None:
                self._file, self._filter = _opened(), bytearray(_FILTER_BYTES)
                # not at the exit, when a thread may be at it
                weakref.finalize(self, self._file.close).atexit = False
            self._file.execute("BEGIN")
            self._file.executemany("INSERT OR REPLACE INTO numbers VALUES (?, ?)", rows)
            self._file.execute("COMMIT")
        except sqlite3.Error as trouble:
            self._lose(trouble)
            return
        for key, _ in rows:
            del self._recent[key]
            for bit in _bits(key):
                self._filter[bit >> 3] |= 1 << (bit & 7)

    def _may_be_in_file(self, key: bytes) -> bool:
        return all(self._filter[bit >> 3] & 1 << (bit & 7) for bit in _bits(key))

    def _lose(self, trouble: sqlite3.Error) -> None:
        quietly("keeping the index of a run on disk", trouble, but="it is kept in memory, however many rows there are")
        self._most = float("inf")
        self._recent = {**dict(self._again()), **self._recent}
        self._file = None


def _bits(key: bytes) -> tuple[int, int]:
    """Where in the filter a key is marked."""
    one, other = key[:_ADDRESS_BYTES], key[_ADDRESS_BYTES : 2 * _ADDRESS_BYTES]
    return int.from_bytes(one, "big"), int.from_bytes(other, "big")


def _opened() -> sqlite3.Connection:
    """A database without a name, in the system's folder for temporary files, which SQLite removes."""
    file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KB}"):
        file.execute(f"PRAGMA {pragma}")
    file.execute("CREATE TABLE numbers (key BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID")
    return file
