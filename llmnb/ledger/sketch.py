"""Percentiles that can be added up: how many values fell into each of a row of logarithmic buckets.

The buckets grow by a factor of 1.04, so that a percentile read off them is within 2 % of a value that was there
(DDSketch, Masson, Rim and Lee 2019). Two sketches are merged by adding their counts, and a value is taken out again by
counting it down. On disk a bucket is six bytes, its number and its count.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ACCURACY = 0.02
_GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
SMALLEST = 0.001
"""Milliseconds; what is shorter counts as this."""
LAST_BUCKET = 800
"""More than 10^10 ms."""

PAIR = [("number", "<i2"), ("count", "<i4")]
"""A bucket on disk, as numpy names it."""
PAIR_BYTES = 6

# looked up and not computed: one logarithm may differ from another in the last digit, and a value that is taken out
# must be found in the bucket it was put in
_BEGINS = [SMALLEST * _GROWTH**number for number in range(LAST_BUCKET)]


def bucket(value: float) -> int:
    """The bucket of a value in milliseconds."""
    return bisect_right(_BEGINS, value) if value > SMALLEST else 0  # 0 also for what is no number


def buckets_of(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The bucket of every value, the same as `bucket` gives."""
    import numpy as np

    return np.where(values > SMALLEST, np.searchsorted(_BEGINS, values, side="right"), 0)


def middle(number: int) -> float:
    """The value that stands for a bucket: at most 2 % from every one in it."""
    return SMALLEST * 2 * _GROWTH**number / (_GROWTH + 1) if number else SMALLEST


def lower_end(number: int) -> float:
    """The smallest value that falls into a bucket (0 for the first)."""
    return _BEGINS[min(number, LAST_BUCKET) - 1] if number else 0.0


def counts(sketches: Iterable[bytes]) -> dict[int, int]:
    """The buckets of sketches, added up."""
    added: dict[int, int] = {}
    for number, count in _added_up(b"".join(sketches)):
        added[number] = added.get(number, 0) + count
    return added


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

    pairs = np.frombuffer(data, dtype=PAIR)
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
