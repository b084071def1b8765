"""The file of a cassette: read whole, written an interaction at a time, at the end and in one piece.

What stands in the file is whole, also when a process is killed in the middle of a line: such a piece at the end is cut
off before more is written, and left out when it is read. Threads, tasks, kernels and forked children may write one
cassette at once.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from llmnb.cassette.interaction import FORMAT, VERSION, Assembly, Interaction, encoded, header, lines_of
from llmnb.errors import CassetteError
from llmnb.locks import try_lock

_PATIENCE_S = 10.0
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Tape:
    """What a cassette holds, in the order it was written; `damaged` says what could not be read, by line."""

    interactions: tuple[Interaction, ...] = ()
    damaged: dict[int, str] = field(default_factory=dict[int, str])


def read(path: Path) -> Tape:
    """Reads a cassette. A piece at the end that was never finished is left out without a word.

    Raises:
        CassetteError: there is none, it is something else, or it is of a newer version.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise CassetteError(f"there is no cassette {path}", path=str(path)) from None
    except OSError as error:
        raise CassetteError(f"the cassette {path} cannot be read: {error.strerror or error}", path=str(path)) from None
    _check_header(path, lines[0])
    interactions: list[Interaction] = []
    damaged: dict[int, str] = {}
    assembly, begun = Assembly(), 0
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            value = _object(line)
            if assembly.is_open and "request" in value:
                damaged[begun] = "its response is not whole"
            if "request" in value:
                begun = number
            whole = assembly.add(value, number)
        except ValueError as error:
            assembly.drop()
            if number < len(lines):  # the last line has no end: it was being written
                damaged[number] = str(error)
            continue
        if whole is not None:
            interactions.append(whole)
    return Tape(tuple(interactions), damaged)


def check(path: Path) -> None:
    """Whether a file is a cassette, or is empty and may become one.

    Raises:
        CassetteError: it is something else, or of a newer version.
    """
    with path.open("rb") as file:
        line = file.readline(4096)
    if line:
        _check_header(path, line)


def _check_header(path: Path, line: bytes) -> None:
    try:
        told = _object(line)
    except ValueError:
        told = {}
    if told.get("format") != FORMAT:
        raise CassetteError(
            f"{path} is no cassette of llmnb: its first line should be {json.dumps(header())}", path=str(path), line=1
        )
    version = told.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise CassetteError(
            f"the cassette {path} is of version {version}, and this llmnb reads up to {VERSION}: pip install -U llmnb",
            path=str(path),
            line=1,
        )


def _object(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return cast("dict[str, Any]", value)


def write(path: Path, interactions: Iterable[Interaction]) -> Path:
    """Writes a whole cassette in one step, in place of what is there; returns its absolute path."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(encoded([header()]))
            for interaction in interactions:
                file.write(encoded(lines_of(interaction)))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


class Recorder:
    """Adds to a cassette. With `anew`, what was there is dropped when the first interaction is added, not before."""

    def __init__(self, path: Path, *, anew: bool) -> None:
        self.path = path
        self._old = _identity(path) if anew else None
        self._pid = os.getpid()
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()

    def add(self, interaction: Interaction) -> None:
        """Writes an interaction, or leaves it to the thread that is writing just now.

        That way a finalizer that ends a stream in the middle of a write, in this very thread, waits for nobody.

        Raises:
            OSError: it cannot be written.
        """
        self._after_fork()
        self._waiting.append(encoded(lines_of(interaction)))
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._lock.release()

    def finish(self) -> None:
        """Waits until everything that was added is in the file."""
        self._after_fork()
        with self._lock:
            self._write()

    def _after_fork(self) -> None:
        if self._pid != os.getpid():  # what waited is the parent's to write, and so is a lock that it held
            self._pid = os.getpid()
            self._waiting = deque()
            self._lock = threading.Lock()

    def _write(self) -> None:
        if not self._waiting:
            return
        with _appending(self.path) as descriptor:
            if self._old is not None and _identity(self.path) == self._old:
                os.ftruncate(descriptor, 0)  # nobody else has begun anew
            self._old = None
            _cut_torn_end(descriptor)
            while self._waiting:
                _write_all(descriptor, self._waiting[0])
                self._waiting.popleft()


@contextmanager
def _appending(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process keeps {path} locked")
            time.sleep(_PAUSE_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _cut_torn_end(descriptor: int) -> None:
    """Ends the file with a whole line; an empty one gets its header."""
    size = end = os.fstat(descriptor).st_size
    while end and (piece := _read_before(descriptor, end))[-1:] != b"\n":
        end -= len(piece) - (piece.rfind(b"\n") + 1)
    if end < size:
        os.ftruncate(descriptor, end)
    if not end:
        _write_all(descriptor, encoded([header()]))


def _read_before(descriptor: int, end: int) -> bytes:
    start = max(end - 4096, 0)
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, end - start)


def _write_all(descriptor: int, data: bytes) -> None:
    """All of it, or nothing: a disk that fills up leaves no torn piece behind."""
    size = os.fstat(descriptor).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What tells whether a file was written to since."""
    try:
        now = path.stat()
    except OSError:
        return None
    return now.st_ino, now.st_size, now.st_mtime_ns
