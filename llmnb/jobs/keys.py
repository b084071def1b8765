"""The keys of a run's rows in their order: seventeen bytes a row, the last in memory and the others in a file."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO

from llmnb.jobs.asking import KEY_BYTES
from llmnb.trouble import quietly

IN_MEMORY = 10_000
_ENTRY = KEY_BYTES + 1
_READ_AT_ONCE = 1_000


class Keys:
    """A list of keys, and for each whether it is the first of its kind."""

    def __init__(self) -> None:
        self._count = 0
        self._newest = bytearray()
        self._most: float = IN_MEMORY * _ENTRY
        self._file: IO[bytes] | None = None
        self._in_file = 0

    def append(self, key: bytes, *, is_first: bool) -> None:
        """One more row."""
        self._newest += key
        self._newest.append(is_first)
        self._count += 1
        if len(self._newest) >= self._most:
            self._save()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> bytes:
        at = row * _ENTRY
        if self._file is None or at >= self._in_file:
            return bytes(self._newest[at - self._in_file :][:KEY_BYTES])
        self._file.seek(at)  # whoever writes or reads looks for its place first
        return self._file.read(KEY_BYTES)

    def __iter__(self) -> Iterator[bytes]:
        for entry in self._entries():
            yield entry[:KEY_BYTES]

    def firsts(self) -> Iterator[bool]:
        """For each row, whether it is the first with its key."""
        for entry in self._entries():
            yield bool(entry[KEY_BYTES])

    def _save(self) -> None:
        try:
            if self._file is None:
                self._file = TemporaryFile(buffering=0)  # noqa: SIM115 - it is closed with this list
                weakref.finalize(self, self._file.close).atexit = False
            self._file.seek(self._in_file)
            if self._file.write(self._newest) != len(self._newest):  # what was written is written over
                raise OSError("there is no room for it")
        except OSError as trouble:
            quietly("noting the order of a run's rows", trouble, but="it is kept in memory, however many there are")
            self._most = float("inf")
            return
        self._in_file += len(self._newest)
        self._newest.clear()

    def _entries(self) -> Iterator[bytes]:
        for block in itertools.chain(self._blocks(), [bytes(self._newest)]):
            for at in range(0, len(block), _ENTRY):
                yield block[at : at + _ENTRY]

    def _blocks(self) -> Iterator[bytes]:
        at = 0
        while self._file is not None and at < self._in_file:
            self._file.seek(at)  # several may read in turn
            block = self._file.read(min(_READ_AT_ONCE * _ENTRY, self._in_file - at))
            at += len(block)
            yield block
