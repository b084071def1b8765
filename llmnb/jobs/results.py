"""What became of the rows of a run, on disk: one line of JSON a row, appended when the row is finished.

A line is written in one piece, so that a process that is killed at any moment leaves whole lines and at most one torn
one, which is passed over. Several processes may write to one file; of two lines with one key the later counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from llmnb.trouble import quietly

KEY_CHARS = 32
_KEY_AT = len(b'{"key":"')
_STATE_AT = _KEY_AT + KEY_CHARS + len(b'","state":"')
_STATES = {"answered": b"a", "failed": b"f", "free": b"u"}
"""`failed` cost something, `free` cost nothing: the network, a rate limit, a refused request. It is asked again."""


class Results:
    """The lines of one run; every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._file: int | None = None
        self._unsaved: dict[str, bytes] = {}
        self._states: dict[bytes, bytes] = {}
        for line in self._lines():
            if (key := _key_of(line)) is not None:
                self._states[key] = line[_STATE_AT : _STATE_AT + 1]

    def has(self, key: str, *, but_failed: bool = False) -> bool:
        """Whether the row is finished: answered or, unless `but_failed`, failed at some cost."""
        state = self._states.get(bytes.fromhex(key))
        return state == b"a" or (state == b"f" and not but_failed)

    def has_failed(self, key: str) -> bool:
        """Whether the row failed at some cost."""
        return self._states.get(bytes.fromhex(key)) == b"f"

    def add(self, key: str, state: str, facts: dict[str, Any]) -> None:
        """Writes down what became of a row. When the disk refuses, it is kept in memory, and one warning says so."""
        told = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        line = f'{{"key":"{key}","state":"{_STATES[state].decode()}","row":{told}}}\n'.encode()
        with self._lock:
            self._states[bytes.fromhex(key)] = _STATES[state]
            try:
                self._write(line)
            except OSError as trouble:
                self._unsaved[key] = line
                quietly("saving a finished row", trouble, but="this row is kept in memory only")

    def cost_nanousd(self) -> int:
        """What all rows of the run have cost so far, those that were asked again each time."""
        lines = (line for line in self._lines() if _key_of(line) is not None)
        return sum(json.loads(line)["row"].get("cost_nanousd") or 0 for line in lines)

    def read(self, wanted: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows with these keys, in the order in which they were finished; later lines replace earlier ones."""
        for line in self._lines():
            key = _key_of(line)
            if key is not None and key.hex() in wanted:
                yield key.hex(), json.loads(line)["row"]
        for key, line in tuple(self._unsaved.items()):
            if key in wanted:
                yield key, json.loads(line)["row"]

    def close(self) -> None:
        """No more rows."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(self._path, flags, 0o600)
            if _is_torn(self._path):
                os.write(self._file, b"\n")
        if os.write(self._file, line) != len(line):
            os.write(self._file, b"\n")
            raise OSError("the disk is full")

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
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


def _key_of(line: bytes) -> bytes | None:
    """The key of a line; None of a torn one."""
    if not (line.startswith(b'{"key":"') and line.endswith(b"}}\n")):
        return None
    try:
        return bytes.fromhex(line[_KEY_AT : _KEY_AT + KEY_CHARS].decode())
    except ValueError:
        return None
