"""Calls under way, on disk from the moment they are sent, so that a killed process leaves a trace of each.

A file a process, one line a slot, as long as there are calls under way at once. The file is mapped into memory and a
slot overwritten in place, which costs about a microsecond and no system call, where a row in the ledger costs a commit;
what is in the map outlives the process. The next process puts what a dead one left on the books. The owner holds a lock
on its file as long as it lives.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmnb.ledger.spool import Record, drain_orphans, new_file

SLOT_BYTES = 1024
_FIRST_SLOTS = 64
_EMPTY = b" " * (SLOT_BYTES - 1) + b"\n"


class Underway:
    """The calls of this process that have been sent and have not ended, kept in a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self._map: mmap.mmap | None = None
        self._room = 0
        self.forget()

    def forget(self) -> None:
        """Leaves the file to the parent, in a child after a fork."""
        self._let_go()  # kept open, it would hold the parent's lock after the parent's death
        self._lock = threading.RLock()  # reentrant: a finalizer may end a call in the middle of another's beginning
        self._slots: dict[str, tuple[int, int]] = {}  # by uid: the slot, and the attempt it notes
        self._free: list[int] = []
        self._path: Path | None = None

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
            if self._path is not None and not self._slots:
                self._path.unlink(missing_ok=True)
            self._let_go()
            self._path = None

    def _write(self, slot: int, line: bytes) -> None:
        if slot >= self._room or self._map is None:
            self._map = self._larger(slot)
        begin = slot * SLOT_BYTES
        self._map[begin : begin + len(line)] = line

    def _larger(self, slot: int) -> mmap.mmap:
        """The file with room for the slot, mapped anew."""
        if self._descriptor is None:
            self._path, self._descriptor = new_file(self._folder)
        room = max(_FIRST_SLOTS, 2 * self._room, slot + 1)
        # written and not only made longer: a full disk says so now, where a store into a hole would kill the process
        data = _EMPTY * (room - self._room)
        os.lseek(self._descriptor, self._room * SLOT_BYTES, os.SEEK_SET)
        if os.write(self._descriptor, data) != len(data):
            raise OSError("the disk is full")
        if self._map is not None:
            self._map.close()
        self._room = room
        return mmap.mmap(self._descriptor, room * SLOT_BYTES)

    def _let_go(self) -> None:
        if self._map is not None:
            self._map.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._map, self._descriptor, self._room = None, None, 0
