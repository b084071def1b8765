"""Rows that come of an iterator: read once, by a thread or task of its own, and kept on disk for the next time.

An iterator may hang, or take seconds for a row. So each row is handed on when it comes, and whoever waits for the next
one can be stopped without the iterator. A few rows are read ahead, and what was read is never lost: a run that was
stopped goes on where it was, in this process. What cannot be written stays in memory: a row that holds a lock or a
lambda, and all that come when the disk is full.
"""

from __future__ import annotations

import pickle
import shutil
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, cast

from llmnb.errors import LlmnbError
from llmnb.jobs import sources
from llmnb.jobs.readers import Reader
from llmnb.jobs.sources import VALUE, joined, listed_frame
from llmnb.trouble import quietly

if TYPE_CHECKING:
    from io import FileIO

    import pandas as pd

FIRST_S = 0.5
"""So long rows are waited for that tell the columns, after the first one: not all rows need have the same keys."""


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """On disk in the place of a row that cannot be written: the `number` of it in memory."""

    number: int


class Spooled:
    """The rows of an iterator as a source (see `sources.Source`).

    Raises:
        Exception: what the iterator raises before its first row.
    """

    def __init__(self, reader: Reader) -> None:
        folder = Path(mkdtemp(prefix="llmnb-rows-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = folder / "rows"
        self._path.touch()
        self._reader = reader
        weakref.finalize(self, self._reader.close)
        self._lock = threading.Lock()  # of those who read, one waits for the iterator
        self._end = self._read = 0
        self._unwritten: list[Any] = []
        self._is_full = False
        self._rest: list[Any] = []  # those after the end of the file, when that can grow no more
        self.count: int | None = None
        self.columns: list[Any] = []
        if not self._more(FIRST_S):
            self.columns = [VALUE]
            self._check()

    def pieces(self) -> Iterator[pd.DataFrame]:
        """The rows, in pieces of `sources.PIECE`; of those that come meanwhile, whatever there is.

        Raises:
            Exception: what the iterator raised, when all rows before have been given.
        """
        rows, given, at, rest = list[Any](), 0, 0, 0
        # unbuffered: bytes after the end are those of a failure, and written over
        with self._path.open("rb", buffering=0) as file:
            while True:
                while at < self._end and len(rows) < sources.PIECE:
                    file.seek(at)
                    rows += self._loaded(file)
                    at = file.tell()
                if self._is_full and at >= self._end:  # in this order: then there is no more of it
                    more = self._rest[rest : rest + sources.PIECE]
                    rest += len(more)
                    rows += more
                if rows:
                    piece, rows = rows[: sources.PIECE], rows[sources.PIECE :]
                    yield self._framed(piece, given)
                    given += len(piece)
                elif not self._more_than(at, rest):
                    self._check()
                    return

    def frame(self) -> pd.DataFrame:
        """All of them."""
        return joined(self.pieces(), self.columns)

    def _framed(self, rows: list[Any], first: int) -> pd.DataFrame:
        # which rows are in a piece is chance: they have the same columns in each
        piece = listed_frame([row if isinstance(row, dict) else {VALUE: row} for row in rows])
        return piece.reindex(columns=self.columns).set_axis(range(first, first + len(rows)))

    def _more_than(self, at: int, rest: int) -> bool:
        """Waits until there is more than that on disk, or in memory after it; False when there will not be."""
        with self._lock:
            return self._end > at or len(self._rest) > rest or self._more()

    def _more(self, patience_s: float = 0.0) -> bool:
        rows = self._reader.take(patience_s)
        if not rows:
            if self._reader.error is None:
                self.count = self._read
            return False
        plain: list[Any] = [dict(cast("Any", row)) if isinstance(row, Mapping) else row for row in rows]
        known = dict.fromkeys(self.columns)
        for row in plain:
            known.update(dict.fromkeys(cast("dict[Any, Any]", row) if isinstance(row, dict) else (VALUE,)))
        self.columns[:] = known
        self._keep(plain)
        self._read += len(rows)
        return True

    def _keep(self, rows: list[Any]) -> None:
        if not self._is_full:
            try:
                try:
                    self._write(rows)
                except OSError:
                    raise
                except Exception:
                    self._write([self._writable(row) for row in rows])
            except OSError as trouble:
                but = "they are kept in memory, however many come"
                quietly("keeping the rows of an iterator on disk", trouble, but=but)
                self._is_full = True
            else:
                return
        self._rest += rows

    def _write(self, rows: list[Any]) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._end)  # over what a failure has left there
            pickle.dump(rows, file)
            file.flush()
            self._end = file.tell()

    def _writable(self, row: Any) -> Any:
        try:
            pickle.dumps(row)
        except Exception:
            self._unwritten.append(row)
            return _Unwritten(len(self._unwritten) - 1)
        return row

    def _loaded(self, file: FileIO) -> list[Any]:
        rows: list[Any] = pickle.load(file)  # noqa: S301 - this process has written it
        if self._unwritten:
            return [self._unwritten[row.number] if isinstance(row, _Unwritten) else row for row in rows]
        return rows

    def _check(self) -> None:
        error = self._reader.error
        if error is None:
            return
        told = (
            f"llmnb: this ended what gives the rows, after {self._read:,} of them. It is read {self._reader.how}; "
            "an iterator cannot go on after an error: make it anew, and the same call asks only what is not finished."
        )
        if not isinstance(error, Exception):
            raise LlmnbError(f"the iterator of the rows ended with {error!r}. {told}") from error
        if told not in getattr(error, "__notes__", ()):
            error.add_note(told)
        raise error
