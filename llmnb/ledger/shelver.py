"""Where records go: into the ledger, else the spool on disk, else (disk full) memory; what waits goes first.

Not for more than one thread at once: `Books` sees to that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from llmnb.errors import StoreError
from llmnb.ledger.schema import mended
from llmnb.ledger.spool import Record, Spool, refuse
from llmnb.ledger.sql import Store

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""After a failed write the ledger is left alone for a while, twice as long each time: a locked ledger must not hold up
every call for the whole busy timeout."""

MOST_IN_MEMORY = 100_000


class Shelver:
    """Writes records into the ledger that `opened` gives, and keeps those that it does not take.

    `warn` is told of trouble by topic and message, `again` after how many seconds it is worth trying once more.
    """

    def __init__(
        self,
        opened: Callable[[], Store],
        folder: Path,
        *,
        warn: Callable[[str, str], None],
        again: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._opened = opened
        self._folder = folder
        self._warn = warn
        self._again = again
        self._clock = clock
        self.spool = Spool(folder)
        self.begin()

    def begin(self) -> None:
        """Begins anew, with nothing in memory."""
        self._memory: deque[Record] = deque(maxlen=MOST_IN_MEMORY)
        self._pause_s = 0.0
        self._not_before = 0.0

    @property
    def waiting(self) -> int:
        """How many records of this process are in the spool or in memory."""
        return len(self._memory) + self.spool.waiting

    def try_now(self) -> None:
        """Has the next attempt be made at once, whatever failed before."""
        self._not_before = 0.0

    def write(self, record: Record) -> None:
        """Writes one record into the ledger, or sets it aside for good when no column can hold it."""
        ledger = self._opened()
        try:
            ledger.write(*record)
        except StoreError:
            raise
        except Exception as error:
            self._write_mended(ledger, record, error)

    def write_many(self, records: Sequence[Record]) -> None:
        """Writes some together."""
        try:
            self._opened().write_all(records)
        except StoreError:
            raise
        except Exception:  # which of them it was is found out one by one
            for record in records:
                self.write(record)

    def catch_up(self) -> bool:
        """Writes what waits, oldest first; False while the ledger cannot be written."""
        if self._clock() < self._not_before:
            return False
        if not self.spool.waiting and not self._memory:
            return True
        try:
            self.spool.drain(self.write_many)
            while self._memory:
                self.write(self._memory[0])
                self._memory.popleft()
        except Exception as error:
            self.failed(error)
            return False
        self._pause_s = 0.0
        return True

    def failed(self, error: Exception) -> None:
        """The ledger could not be written: it is left alone for a while, and that is said."""
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
        self._not_before = self._clock() + self._pause_s
        self._again(self._pause_s)
        self._warn(
            f"books: {type(error).__name__}",
            f"{error} Your calls go on; their rows wait in {self._folder} and are written as soon as it works again.",
        )

    def keep(self, record: Record) -> None:
        """Keeps a record until the ledger takes it again."""
        if len(self._memory) == MOST_IN_MEMORY:
            self._warn("memory", f"more than {MOST_IN_MEMORY:,} rows wait in memory: the oldest are lost.")
        self._memory.append(record)
        self.spool_memory()

    def spool_memory(self) -> None:
        """Puts what is in memory on disk, if that takes it."""
        try:
            while self._memory:
                self.spool.append(self._memory[0])
                self._memory.popleft()
        except Exception as error:
            self._warn(
                f"spool: {type(error).__name__}",
                f"the spool {self._folder} cannot be written either ({error}): rows wait in memory, and are lost if "
                "this process ends first. Free some disk space, or set LLMNB_HOME to another folder.",
            )

    def _write_mended(self, ledger: Store, record: Record, error: Exception) -> None:
        """A field that no column can hold: without it if possible, else set aside, since it would block all others."""
        try:
            ledger.write(mended(record[0]), [mended(child) for child in record[1]])
        except StoreError:
            raise
        except Exception:
            path = refuse(self._folder, record, error)
            self._warn("refused", f"a call could not be put on the books ({error}); it was written to {path} instead.")
