"""Percentiles that can be added up: how many values fell into each of a row of logarithmic buckets.

The buckets grow by a factor of 1.04, so that a percentile read off them is within 2 % of a value that was there
(DDSketch, Masson, Rim and Lee 2019). Two sketches are merged by adding their counts, and a value is taken out again by
counting it down. On disk a bucket is six bytes, its number and its count.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from math import log

ACCURACY = 0.02
_GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GROWTH = log(_GROWTH)
SMALLEST = 0.001
"""Milliseconds; what is shorter counts as this."""
LAST_BUCKET = 800
"""More than 10^10 ms."""

Buckets = dict[int, int]


def bucket(value: float) -> int:
    """The bucket of a value in milliseconds."""
    if not value > SMALLEST:  # also what is no number
        return 0
    return min(int(log(value * _PER_SMALLEST) * _PER_GROWTH) + 1, LAST_BUCKET)


_PER_SMALLEST = 1 / SMALLEST
_PER_GROWTH = 1 / _LOG_GROWTH


def middle(number: int) -> float:
    """The value that stands for a bucket: at most 2 % from every one in it."""
    return SMALLEST * 2 * _GROWTH**number / (_GROWTH + 1) if number else SMALLEST


def packed(buckets: Mapping[int, int]) -> bytes:
    """The bytes of a sketch; buckets without a count are left out."""
    pairs = [pair for pair in sorted(buckets.items()) if pair[1]]
    return struct.pack(f"<{'hi' * len(pairs)}", *chain.from_iterable(pairs))


def unpacked(data: bytes) -> Iterator[tuple[int, int]]:
    """The buckets of a sketch with their counts."""
    return struct.iter_unpack("<hi", data)  # pyright: ignore[reportReturnType]


def percentiles(sketches: Iterable[bytes], values: Mapping[int, int], shares: Iterable[float]) -> list[float | None]:
    """The values below which these shares of all lie that were counted, in sketches or in buckets; None without any."""
    merged = Counter(values)
    for number, count in _added_up(b"".join(sketches)):
        merged[number] += count
    ordered = sorted((number, count) for number, count in merged.items() if count > 0)
    total = sum(count for _, count in ordered)
    return [_ranked(ordered, share * (total - 1)) if total else None for share in shares]


def _added_up(data: bytes) -> Iterable[tuple[int, int]]:
    """The buckets of many sketches one after the other, each once."""
    if len(data) < _WORTH_NUMPY:
        return unpacked(data)
    import numpy as np  # a reader has pandas loaded anyway

    pairs = np.frombuffer(data, dtype=[("number", "<i2"), ("count", "<i4")])
    counts = np.bincount(pairs["number"], weights=pairs["count"])  # floats, exact up to 2^53
    return [(int(number), int(counts[number])) for number in np.nonzero(counts)[0]]


_WORTH_NUMPY = 6_000


def _ranked(ordered: list[tuple[int, int]], rank: float) -> float:
    """The value at a rank from 0, interpolated like `totals.quantile` where it falls between two buckets."""
    passed = 0
    for at, (number, count) in enumerate(ordered):
        passed += count
        if rank <= passed - 1 or at == len(ordered) - 1:
            return middle(number)
        if rank < passed:  # between the last value of this bucket and the first of the next
            below, above = middle(number), middle(ordered[at + 1][0])
            return below + (above - below) * (rank - (passed - 1))
    raise AssertionError("a rank lies among the values")
