"""What rows add to the roll-ups, before any database is asked: `test_rollups` holds the whole against the rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmnb.ledger import sketch
from llmnb.ledger.additions import Additions, additions, merged_sketches
from llmnb.ledger.measures import NAMES
from llmnb.ledger.zones import SLOT_US

milliseconds = st.one_of(st.none(), st.floats(min_value=0, max_value=1e12))


def row(ts: int = 0, latency: float | None = None, sign: int = 1, user: str | None = None, amount: int = 1) -> Any:
    """A row as it is read from the books."""
    return (sign, ts, latency, None, None, "p", user, "anthropic", "m", None, *[sign * amount] * len(NAMES))


def read(blob: bytes) -> dict[int, int]:
    return dict(sketch.unpacked(blob))


@given(st.lists(st.floats(min_value=0), min_size=1))
def test_columns_fall_in_the_buckets_of_values(values: list[float]) -> None:
    """A value that was put in by the thousand is found again by itself, to the last digit."""
    assert sketch.buckets_of(np.array(values)).tolist() == [sketch.bucket(value) for value in values]


@given(st.floats(min_value=sketch.SMALLEST * 1.01, max_value=1e10))
def test_a_bucket_stands_for_its_values(value: float) -> None:
    """The middle of a bucket is within the accuracy told."""
    assert abs(sketch.middle(sketch.bucket(value)) / value - 1) <= sketch.ACCURACY * 1.001


def test_sums_by_slot_day_and_person() -> None:
    """Rows of two quarters of an hour and two people, one of them taken out again."""
    rows = [row(5, user="ann", amount=3), row(SLOT_US, user="ben"), row(6, user="ann", sign=-1)]
    sums = additions(rows, lambda _: 0).sums
    width = len(NAMES)
    assert sums["rollup_slots"] == [(0, "anthropic", "m", *[2] * width), (SLOT_US, "anthropic", "m", *[1] * width)]
    assert sums["rollup_days"] == [(0, "anthropic", "m", *[3] * width)]
    assert sums["rollup_projects"] == [(0, "p", "anthropic", "m", *[3] * width)]
    ann, ben = (0, "p", "ann", "anthropic", "m", b""), (0, "p", "ben", "anthropic", "m", b"")
    assert sums["rollup_people"] == [(*ann, *[2] * width), (*ben, *[1] * width)]


def test_a_sum_of_more_than_64_bits_does_not_wrap() -> None:
    """It is told as it is, for the database to refuse, and never turns negative."""
    rows = [row(amount=2**62), row(amount=2**62)]
    assert additions(rows, lambda _: 0).sums["rollup_days"][0][-1] == 2**63


@given(st.lists(milliseconds), st.lists(milliseconds))
def test_sketches_grow_by_what_is_added(before: list[float | None], after: list[float | None]) -> None:
    """Two folds leave the counts of all values, and taking rows out again leaves none of theirs."""
    stored: dict[Any, tuple[bytes, bytes]] = {}

    def fold(found: Additions) -> None:
        stored.update(
            {tuple(key): pair for *key, pair in ((*r[:-2], r[-2:]) for r in merged_sketches(found, stored_at))}
        )

    def stored_at(key: Any) -> tuple[bytes, bytes] | None:
        return stored.get(tuple(key))

    for values in (before, after):
        fold(additions([row(latency=value) for value in values], lambda _: 0))
    key = (0, "p", "anthropic", "m")
    counted = Counter(sketch.bucket(value) for value in [*before, *after] if value is not None)
    assert read(stored.get(key, (b"", b""))[0]) == counted
    fold(additions([row(latency=value, sign=-1) for value in [*before, *after]], lambda _: 0))
    assert stored.get(key, (b"", b"")) == (b"", b"")


def test_nothing_adds_nothing() -> None:
    """No rows, no sums, no sketches."""
    assert additions([], lambda _: 0) == Additions()
    assert merged_sketches(Additions(), lambda _: None) == []
