"""The keys of a run's rows in their order: sixteen bytes a row, and no object."""

from __future__ import annotations

from collections.abc import Iterator

from llmnb.jobs.asking import KEY_BYTES


class Keys:
    """A list of keys."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def append(self, key: bytes) -> None:
        """One more row."""
        self._bytes += key

    def __len__(self) -> int:
        return len(self._bytes) // KEY_BYTES

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._bytes), KEY_BYTES):
            yield bytes(self._bytes[at : at + KEY_BYTES])

    def firsts(self) -> Iterator[bool]:
        """For each row, whether it is the first with its key."""
        import numpy as np

        halves = np.frombuffer(bytes(self._bytes), dtype=[("a", "<u8"), ("b", "<u8")])
        order = np.lexsort((halves["b"], halves["a"]))  # stable: of equal keys the first stays the first
        repeats = halves[order][1:] == halves[order][:-1]
        is_first = np.ones(len(halves), dtype=bool)
        is_first[order[1:]] = ~repeats
        yield from is_first.tolist()
