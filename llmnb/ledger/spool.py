"""Rows that could not be written yet, on disk until they can: JSON lines, one file a process.

The owner holds a lock on its file as long as it lives, so that another process drains only what the dead left behind.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from llmnb import locks
from llmnb.ledger.schema import COLUMNS, values_of
from llmnb.records import Call

Record = tuple[Call, tuple[Call, ...]]
"""A call with its child rows."""

_TRIES = 5
_ROWS_TOGETHER = 500


Write = Callable[[Sequence[Record]], None]
"""Writes some records, all or none. Writing one twice is harmless: it has a uid."""

TOGETHER_BYTES = 1 << 19
"""So much of a spool is written at once: about a thousand rows."""


class Spool:
    """The files in `folder`; this process appends to one of its own, from any thread, also while it is drained."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self.forget()

    @property
    def waiting(self) -> int:
        """How many records of this process are in it."""
        return self._waiting

    def append(self, record: Record) -> None:
        """Adds a record with one write.

        Raises:
            OSError: it was not kept; the file holds what it held before.
        """
        line = encode(record)
        with self._lock:
            descriptor = self._opened()
            before = os.lseek(descriptor, 0, os.SEEK_END)
            try:
                if os.write(descriptor, line) != len(line):
                    raise OSError("the disk is full")
            except OSError:
                os.ftruncate(descriptor, before)  # half a line would swallow the next one
                raise
            self._waiting += 1

    def drain(self, write: Write) -> int:
        """Hands the records of this process to `write`, some at a time and oldest first; the number of records.

        What was written is dropped when all is. When `write` raises, the next drain begins with the same records.
        """
        count = 0
        while lines := self._next_lines():
            records = list(_decoded(lines))
            if records:
                write(records)
            with self._lock:
                self._drained += sum(map(len, lines))
                self._waiting -= len(lines)
            count += len(records)
        return count

    def _next_lines(self) -> list[bytes]:
        """What comes after that which was drained; when there is nothing, the file is emptied."""
        with self._lock:
            if self._descriptor is None:
                return []
            size = os.lseek(self._descriptor, 0, os.SEEK_END)
            if self._drained >= size:
                os.ftruncate(self._descriptor, 0)
                self._drained = self._waiting = 0
                return []
            data, wanted = b"", TOGETHER_BYTES
            while not data.count(b"\n") and len(data) < size - self._drained:  # a line may be longer than is usual
                os.lseek(self._descriptor, self._drained, os.SEEK_SET)
                data, wanted = os.read(self._descriptor, wanted), 2 * wanted
        return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)

    def drain_orphans(self, write: Write) -> int:
        """The same for the files of processes that have died."""
        return drain_orphans(self._folder, _records, write, except_for=self._path)

    def close(self) -> None:
        """Lets go of the file, and removes it when nothing is in it."""
        with self._lock:
            if self._descriptor is None or self._path is None:
                return
            if os.lseek(self._descriptor, 0, os.SEEK_END) <= self._drained:
                self._path.unlink(missing_ok=True)
            self.forget()

    def forget(self) -> None:
        """Leaves the file to the parent, in a child after a fork."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # the parent's descriptor still holds the lock
        self._lock = threading.RLock()  # reentrant: a finalizer may add a record in the middle of anything
        self._path: Path | None = None
        self._descriptor = None
        self._drained = 0  # bytes at the beginning of the file that are on the books
        self._waiting = 0

    def _opened(self) -> int:
        if self._descriptor is None or self._path is None or not self._path.exists():
            self._path, self._descriptor = new_file(self._folder)
        return self._descriptor


def new_file(folder: Path) -> tuple[Path, int]:
    """A new file with its lock held; tried again when somebody took it for an orphan before it was locked.

    Raises:
        OSError: there is none to be had.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(_TRIES):
        path = folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if locks.try_lock(descriptor) and os.fstat(descriptor).st_nlink > 0:
            return path, descriptor
        os.close(descriptor)
    raise OSError(f"no file in {folder} can be locked")


def drain_orphans(
    folder: Path,
    read: Callable[[Path], Iterable[Record]],
    write: Write,
    *,
    except_for: Path | None = None,
) -> int:
    """Hands what dead processes left in a folder to `write`, and removes their files; the number of records."""
    return sum(_drain_orphan(path, read, write) for path in _files(folder) if path != except_for)


def waiting(folder: Path) -> int:
    """How many records wait in the spool, of the living and the dead."""
    return sum(path.read_bytes().count(b"\n") for path in _files(folder))


def refuse(folder: Path, record: Record, error: Exception) -> Path:
    """Keeps a record that no ledger can hold, with the reason, for a person to look at.

    Raises:
        OSError: it was not kept.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "refused.txt"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        file.write(f"{type(error).__name__}: {error}\n".encode("utf-8", "replace") + encode(record))
    return path


_json = json.JSONEncoder(default=str, separators=(",", ":")).encode


def encode(record: Record) -> bytes:
    """One JSON line of a record."""
    call, children = record
    return _json({"call": _fields(call), "children": [_fields(child) for child in children]}).encode() + b"\n"


def decode(line: bytes) -> Record | None:
    """The record of a JSON line; None for half a line, or one that holds no call."""
    try:
        data = json.loads(line)
        return call_of(data["call"]), tuple([call_of(child) for child in data["children"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


_BEGINNING = Call(uid="", ts=0, model_requested="")
_DEFAULTS = values_of(_BEGINNING)


def _fields(call: Call) -> dict[str, object]:
    """What a call says beyond the defaults of a record."""
    columns = zip(COLUMNS, values_of(call), _DEFAULTS, strict=True)
    return {name: value for name, value, default in columns if value != default or name in _REQUIRED}


_REQUIRED = ("uid", "ts", "model_requested")
"""Without them no call can be made of a line, whatever they hold."""


def call_of(data: Mapping[str, Any]) -> Call:
    """The call of which these fields are known.

    Raises:
        TypeError: they are too few for a call.
    """
    # a newer llmnb may have written fields that this one has no column for
    return Call(**{name: value for name, value in data.items() if name in COLUMNS})


def _files(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("*.jsonl"))


def _records(path: Path) -> Iterator[Record]:
    with open(path, "rb") as file:
        yield from _decoded(file)


def _decoded(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        record = decode(line)
        if record is not None:
            yield record


def _write_all(records: Iterator[Record], write: Write) -> int:
    count = 0
    while together := list(islice(records, _ROWS_TOGETHER)):
        write(together)
        count += len(together)
    return count


def _drain_orphan(path: Path, read: Callable[[Path], Iterable[Record]], write: Write) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # drained by somebody else, or not ours to read
        return 0
    try:
        if not locks.try_lock(descriptor) or os.fstat(descriptor).st_nlink == 0:
            return 0
        count = _write_all(iter(read(path)), write)
        with suppress(OSError):
            path.unlink()
        return count
    finally:
        os.close(descriptor)
