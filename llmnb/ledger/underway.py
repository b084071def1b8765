"""Calls under way, on disk from the moment they are sent, so that a killed process leaves a trace of each.

A file a process, a slot for each call, as long as there are calls under way at once. The file is mapped into memory and
a slot overwritten in place, which costs about a microsecond and no system call, where a row in the ledger costs a
commit; what is in the map outlives the process. The next process puts what a dead one left on the books. The owner
holds a lock on its file as long as it lives.

A slot holds one line: what was known of a call when it was sent, as a JSON object, and what came up since, as another.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from llmnb.ledger.answered import ANSWER, Prices, rows_of_line
from llmnb.ledger.spool import Record, Write, call_of, drain_orphans, new_file

SLOT_BYTES = 2048
_FIRST_SLOTS = 32
_EMPTY = b"\n" * SLOT_BYTES
_NEWLINE = 0x0A  # first in a slot, it says that nothing is in it


_Note: TypeAlias = tuple[int, int, int]
"""A call in its slot: where, which attempt, and how many bytes what was known when it was sent takes."""


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
        self._slots: dict[str, _Note] = {}  # by uid
        self._free: list[int] = []
        self._path: Path | None = None

    def note(self, uid: str, attempt: int, line: bytes) -> bool:
        """Keeps the line of a call, in place of an earlier one; False when it is too long for a slot.

        Raises:
            OSError: it could not be written.
        """
        if len(line) >= SLOT_BYTES:
            return False
        with self._lock:
            noted = self._slots.get(uid)
            slot = noted[0] if noted else self._free.pop() if self._free else len(self._slots)
            self._slots[uid] = slot, attempt, len(line)
            if slot >= self._room:
                self._make_room(uid, slot)
            self._write(slot * SLOT_BYTES, line)
        return True

    def add(self, uid: str, attempt: int, line: bytes) -> bool:
        """Keeps more of a call that is noted; False when this attempt of it is not, or there is no room.

        Raises:
            OSError: it could not be written.
        """
        with self._lock:
            noted = self._slots.get(uid)
            if noted is None:
                return False
            slot, noted_attempt, size = noted
            if noted_attempt != attempt or size + len(line) >= SLOT_BYTES:
                return False
            self._write(slot * SLOT_BYTES + size, line)
        return True

    def end(self, uid: str, attempt: int) -> None:
        """The call is kept elsewhere; nothing is kept of it here, unless a later attempt is under way."""
        with self._lock:
            noted = self._slots.get(uid)
            if noted is not None and noted[1] == attempt:
                del self._slots[uid]
                self._free.append(noted[0])
                if self._map is not None:
                    self._map[noted[0] * SLOT_BYTES] = _NEWLINE

    def drain_orphans(self, write: Write, prices: Prices = None) -> int:
        """Hands over what dead processes left, priced where that was left to do; the number of calls."""
        return drain_orphans(self._folder, lambda path: _records(path, prices), write, except_for=self._path)

    def close(self) -> None:
        """Lets go of the file, and removes it when no call is under way."""
        with self._lock:
            if self._path is not None and not self._slots:
                self._path.unlink(missing_ok=True)
            self._let_go()
            self._path = None

    def _write(self, begin: int, line: bytes) -> None:
        slots = self._map
        assert slots is not None
        # the first byte last: killed in between, the slot says what it said before, or nothing
        slots[begin + 1 : begin + len(line) + 1] = line[1:] + b"\n"
        slots[begin] = line[0]

    def _make_room(self, uid: str, slot: int) -> None:
        try:
            self._map = self._larger(slot)
        except OSError:
            del self._slots[uid]
            self._free.append(slot)
            raise

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


# Reading --------------------------------------------------------------------------------------------------------------

_next_object = json.JSONDecoder().raw_decode


def decode(line: bytes, prices: Prices = None) -> Record | None:
    """The record of a line; None for half a one, or one that holds no call.

    Of what was added to the beginning of a call, anything may be missing: then it is as it was sent.
    """
    text = line.decode("utf-8", "replace")
    try:
        known, end = _next_object(text)
        with suppress(ValueError, RecursionError):
            known = {**known, **_next_object(text, end)[0]}
        if ANSWER in known:
            with suppress(Exception):  # whatever was answered, it is a call
                rows = rows_of_line(known, prices)
                return rows[0], rows[1:]
        return call_of(known), ()
    except (ValueError, TypeError):
        return None


def _records(path: Path, prices: Prices) -> Iterator[Record]:
    with open(path, "rb") as file:
        while slot := file.read(SLOT_BYTES):
            record = decode(slot.partition(b"\n")[0], prices)
            if record is not None:
                yield record
