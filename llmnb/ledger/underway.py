"""Calls under way, on disk from the moment they are sent, so that a killed process leaves a trace of each.

A file a process, one line a slot, as long as there are calls under way at once. A slot is overwritten in place, which
costs a few microseconds, where a row in the ledger costs a commit. What a dead process left is put on the books by the
next one. The owner holds a lock on its file as long as it lives.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmnb.ledger.spool import Record, drain_orphans, new_file

SLOT_BYTES = 1024


class Underway:
    """The calls of this process that have been sent and have not ended, kept in a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self.forget()

    def forget(self) -> None:
        """Leaves the file to the parent, in a child after a fork."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # kept open, it would hold the parent's lock after the parent's death
        self._lock = threading.RLock()  # reentrant: a finalizer may end a call in the middle of another's beginning
        self._slots: dict[str, tuple[int, int]] = {}  # by uid: the slot, and the attempt it notes
        self._free: list[int] = []
        self._path: Path | None = None
        self._descriptor = None

    def note(self, uid: str, attempt: int, line: bytes) -> bool:
        """Keeps the line of a call, in place of an earlier one; False when it is too long for a slot.

        Raises:
            OSError: it could not be written.
        """
        if len(line) > SLOT_BYTES:
            return False
        with self._lock:
            slot, _ = self._slots.get(uid) or (self._free.pop() if self._free else len(self._slots), 0)
            self._slots[uid] = slot, attempt
            self._write(slot, line[:-1].ljust(SLOT_BYTES - 1) + b"\n")
        return True

    def end(self, uid: str, attempt: int) -> None:
        """The call is kept elsewhere; nothing is kept of it here, unless a later attempt is under way."""
        with self._lock:
            slot, noted = self._slots.get(uid) or (0, None)
            if noted == attempt:
                del self._slots[uid]
                self._free.append(slot)
                with suppress(OSError):  # at worst a row that has ended is offered once more, and changes nothing
                    self._write(slot, b" ")

    def drain_orphans(self, write: Callable[[Record], None]) -> int:
        """Hands over what dead processes left; the number of calls."""
        return drain_orphans(self._folder, write, except_for=self._path)

    def close(self) -> None:
        """Lets go of the file, and removes it when no call is under way."""
        with self._lock:
            if self._descriptor is not None and self._path is not None:
                if not self._slots:
                    self._path.unlink(missing_ok=True)
                os.close(self._descriptor)
            self._path = self._descriptor = None

    def _write(self, slot: int, line: bytes) -> None:
        if self._descriptor is None:
            self._path, self._descriptor = new_file(self._folder)
        _write_at(self._descriptor, line, slot * SLOT_BYTES)


def _seek_and_write(descriptor: int, data: bytes, offset: int) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


_write_at = getattr(os, "pwrite", _seek_and_write)  # Windows has no pwrite
