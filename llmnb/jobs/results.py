"""What became of the rows of a run, on disk: one line of JSON a row, appended when the row is finished.

A line is written in one piece, so that a process that is killed at any moment leaves whole lines and at most one torn
one, which is passed over. Several processes may write to one file; of two lines with one key the later counts. A number
a row says where its line is and how the row ended; of many rows they are not in memory (see `Index`).
"""

from __future__ import annotations

import errno
import json
import os
import re
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import jiter

from llmnb.jobs.index import Index
from llmnb.trouble import quietly

KEY_CHARS = 32
_BEGINNING = b'{"key":"'
_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_KEY_AT = len(_BEGINNING)
_STATE_AT = _KEY_AT + KEY_CHARS + len(b'","state":"')
_HEAD = re.compile(rb'\{"key":"[0-9a-f]{32}","state":"[afu]","row":\{')
_COST = b',"cost_nanousd":'
_LETTERS = {"answered": b"a", "failed": b"f", "free": b"u"}
"""`failed` cost something, `free` cost nothing: the network, a rate limit, a refused request. It is asked again."""
_CODES = {b"a": 1, b"f": 2, b"u": 3}
_IN_MEMORY = "such rows are in memory, and saved where there is room at its end: free some, or save the frame it gives"
_ANSWERED, _FAILED, _STATE = 1, 2, 3
_NEW = 4
_SEEN = 8
_LEFT = 4  # bits before it; it has 8
_LEFT_APART = 255
_OFFSET = 12


class Known(int):
    """What is known of a row, in one number."""

    __slots__ = ()

    @property
    def is_seen(self) -> bool:
        """Whether a row with its key is among those of the run."""
        return bool(self & _SEEN)

    @property
    def is_new(self) -> bool:
        """Whether it was added here, and not by an earlier run."""
        return bool(self & _NEW)

    @property
    def is_left(self) -> bool:
        """Whether it is not asked this time."""
        return bool(self >> _LEFT & _LEFT_APART)

    @property
    def has_failed(self) -> bool:
        """Whether it was asked, and failed."""
        return self & _STATE > _ANSWERED

    def is_finished(self, *, but_failed: bool = False) -> bool:
        """Whether it is answered or, unless `but_failed`, failed at some cost."""
        state = self & _STATE
        return state == _ANSWERED or (state == _FAILED and not but_failed)


class Results:
    """The lines of one run; every method may be called from any thread.

    `spent_nanousd` is what all its rows have cost so far, those that were asked again each time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._file: int | None = None
        self._reader: BinaryIO | None = None
        self._is_torn = False
        self._unsaved: dict[bytes, bytes] = {}
        self._own: list[list[int]] = []  # from where to where, in the file, lines were written here
        again = weakref.WeakMethod(self._again)  # no circle: an index of many rows is gone with what they became
        self._index = Index(lambda: () if (found := again()) is None else found())
        self._began_at: int | None = None
        self._left: list[str] = []
        self._left_apart: dict[bytes, str] = {}
        self.seen: Callable[[], Iterable[bytes]] = tuple
        """Gives the keys that were seen, for when the index is lost; to be set by who keeps them."""
        self.spent_nanousd = 0
        self._read_to = 0
        for _ in self._added_elsewhere():
            pass
        self._began_at = self._read_to

    def catch_up(self) -> list[bytes]:
        """Reads what other processes have added since; the keys of these rows."""
        return list(self._added_elsewhere())

    def _added_elsewhere(self) -> Iterator[bytes]:
        index, own = self._index, self._own
        for key, number, line, read_to in self._read(self._read_to):
            seen = index.get(key) & _SEEN
            if own and self._is_own(read_to - len(line)):
                index.set(key, number | _SEEN | _NEW)
            else:
                index.set(key, number | seen)
                self.spent_nanousd += _cost_of(line)
                yield key
            self._read_to = read_to
        with self._lock:
            self._own = [[begin, end] for begin, end in self._own if end > self._read_to]

    def _is_own(self, offset: int) -> bool:
        """Whether the line that begins there was written here: what it cost is counted."""
        at = bisect_right(self._own, offset, key=lambda written: written[0]) - 1
        return at >= 0 and offset < self._own[at][1]

    def see(self, key: bytes) -> Known:
        """A row with this key is among those of the run; what was known of it before."""
        number = self._index.get(key)
        if not number & _SEEN:
            self._index.set(key, number | _SEEN)
        return Known(number)

    def known(self, key: bytes) -> Known:
        """What is known of a row."""
        return Known(self._index.get(key))

    def has(self, key: bytes, *, but_failed: bool = False) -> bool:
        """Whether the row is finished: answered or, unless `but_failed`, failed at some cost."""
        return self.known(key).is_finished(but_failed=but_failed)

    def has_failed(self, key: bytes) -> bool:
        """Whether the row has failed."""
        return self.known(key).has_failed

    def is_new(self, key: bytes) -> bool:
        """Whether the row was added here, and not by an earlier run."""
        return self.known(key).is_new

    def leave(self, key: bytes, told: str) -> None:
        """Says why a row is not asked this time. That is not written down: the next time it is."""
        if told not in self._left and len(self._left) < _LEFT_APART - 1:
            self._left.append(told)
        if told in self._left:
            left = self._left.index(told) + 1
        else:
            left = _LEFT_APART
            self._left_apart[key] = told
        self._index.set(key, self._index.get(key) & ~(_LEFT_APART << _LEFT) | left << _LEFT)

    def left(self, key: bytes) -> str | None:
        """Why the row is not asked this time; None of all others."""
        left = self._index.get(key) >> _LEFT & _LEFT_APART
        return self._left_apart.get(key) if left == _LEFT_APART else self._left[left - 1] if left else None

    def add(self, key: bytes, state: str, facts: dict[str, Any]) -> None:
        """Writes down what became of a row. When the disk refuses, it is kept in memory, and one warning says so."""
        letter = _LETTERS[state]
        told = _written(facts)
        line = f'{{"key":"{key.hex()}","state":"{letter.decode()}","row":{told}}}\n'.encode("utf-8", "surrogatepass")
        with self._lock:
            self.spent_nanousd += facts.get("cost_nanousd") or 0
            offset = 0
            try:
                offset = self._write(line)
                self._unsaved.pop(key, None)
            except OSError as trouble:
                self._unsaved[key] = line
                quietly("saving a finished row", trouble, but=_IN_MEMORY)
            self._index.set(key, offset << _OFFSET | _SEEN | _NEW | _CODES[letter])

    def counts(self) -> tuple[int, int]:
        """How many rows are answered, and how many failed."""
        states = self._index.counts(_STATE)
        return states[_ANSWERED], states.total() - states[_ANSWERED] - states[0]

    def facts(self, key: bytes, known: Known | None = None) -> dict[str, Any] | None:
        """What became of a row; None of one that was never finished."""
        number = self._index.get(key) if known is None else known
        if not number & _STATE:
            return None
        line = self._unsaved.get(key) or self._line_at(number >> _OFFSET)
        if line is None or not _is_of(line, key):  # somebody has changed the file
            return None
        try:
            return jiter.from_json(line)["row"]
        except ValueError:  # half a surrogate pair
            return json.loads(line.decode("utf-8", "surrogatepass"))["row"]

    def __iter__(self) -> Iterator[bytes]:
        """The keys of all rows that were ever finished, in the order of their lines."""
        return (key for key, number in self._index.items() if number & _STATE)

    def close(self) -> None:
        """No more rows are added or read; whoever does opens the file again. What found no room before is saved now."""
        with self._lock:
            self._save_the_rest()
            if self._file is not None:
                os.close(self._file)
                self._file = None
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def is_saved(self) -> bool:
        """Whether all rows are on disk, and would be there after a power cut."""
        with self._lock:
            self._save_the_rest()
            if self._file is not None:
                with suppress(OSError):  # a file system that knows no fsync
                    os.fsync(self._file)
            return not self._unsaved

    def _save_the_rest(self) -> None:
        with suppress(OSError):  # it was said
            for key, line in tuple(self._unsaved.items()):
                self._index.set(key, self._write(line) << _OFFSET | self._index.get(key) & ((1 << _OFFSET) - 1))
                del self._unsaved[key]

    def _write(self, line: bytes) -> int:
        """Appends a line, and gives the offset at which it stands.

        Raises:
            OSError: the disk is full; a part of the line may be there, and is closed before the next one.
        """
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(self._path, flags, 0o600)
            self._is_torn = _is_torn(self._path)
        if self._is_torn:
            os.write(self._file, b"\n")
            self._is_torn = False
        if os.write(self._file, line) != len(line):
            self._is_torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        end = os.lseek(self._file, 0, os.SEEK_CUR)  # others may append, too
        if self._own and self._own[-1][1] == end - len(line):
            self._own[-1][1] = end
        else:
            self._own.append([end - len(line), end])
        return end - len(line)

    def _line_at(self, offset: int) -> bytes | None:
        with self._lock:
            try:
                if self._reader is None:
                    self._reader = self._path.open("rb")
                self._reader.seek(offset)
                return self._reader.readline()
            except OSError as trouble:
                quietly("reading finished rows", trouble, but="their answers are missing")
                return None

    def _read(self, offset: int) -> Iterator[tuple[bytes, int, bytes, int]]:
        """Of each whole line from there on its key, its number for the index, itself, and where it ends."""
        for line in self._lines(offset):
            if not line.endswith(b"\n"):  # it is being written
                return
            offset += len(line)
            whole = _whole(line)
            if (key := _key_of(whole)) is not None:
                at, code = offset - len(whole), _CODES.get(whole[_STATE_AT : _STATE_AT + 1], 3)
                yield key, at << _OFFSET | code, whole, offset

    def _again(self) -> Iterable[tuple[bytes, int]]:
        """What the index had to say, but for rows that were left: by the lines on disk, and by what is not there."""
        found: dict[bytes, int] = {}
        for key, number, _, _ in self._read(0):
            is_new = self._began_at is not None and number >> _OFFSET >= self._began_at
            found[key] = number | (_NEW if is_new else 0)
        for key, line in tuple(self._unsaved.items()):
            found[key] = _NEW | _CODES[line[_STATE_AT : _STATE_AT + 1]]
        for key in self.seen():
            found[key] = found.get(key, 0) | _SEEN
        return found.items()

    def _lines(self, offset: int) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                yield from file
        except (FileNotFoundError, NotADirectoryError):  # the first to be written will tell what is wrong
            return
        except OSError as trouble:
            quietly("reading finished rows", trouble, but="they are asked again, or come from the response cache")


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _whole(line: bytes) -> bytes:
    """A line without what stands before it of one that another process could not end, because the disk was full."""
    if line.rfind(_BEGINNING) <= 0:
        return line
    try:
        json.loads(line)  # an answer may have such a field
    except ValueError:
        return line[max((found.start() for found in _HEAD.finditer(line)), default=0) :]
    return line


def _key_of(line: bytes) -> bytes | None:
    """The key of a line; None of a torn one."""
    if not (line.startswith(_BEGINNING) and line.endswith(b"}}\n")):
        return None
    try:
        return bytes.fromhex(line[_KEY_AT : _KEY_AT + KEY_CHARS].decode())
    except ValueError:
        return None


def _is_of(line: bytes, key: bytes) -> bool:
    """Whether it is a whole line with that key."""
    return line.startswith(_BEGINNING + key.hex().encode()) and line.endswith(b"}}\n")


def _cost_of(line: bytes) -> int:
    """What a line says its row cost, without reading all of it: in a JSON text no quote stands for itself."""
    at = line.rfind(_COST)  # the last: an answer may have such a field, and stands before
    if at < 0:
        return 0
    digits = line[at + len(_COST) : at + len(_COST) + 24].partition(b",")[0].rstrip(b"}\n")
    return int(digits) if digits.isdigit() else 0
