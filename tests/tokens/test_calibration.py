"""A line fitted to billed calls: right without noise, near with it, and unmoved by outliers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.records import Calibration
from llmnb.tokens.calibration import SHARE_WITHIN, UNCALIBRATED_ERROR, fitted

MODEL = "claude-sonnet-5-5"


def test_without_calls_the_default_stands() -> None:
    """Two calls are not enough to learn from."""
    for pairs in ([], [(100.0, 130.0)], [(100.0, 130.0)] * 2, [(0.0, 5.0)] * 9):
        found = fitted(MODEL, "characters", pairs)
        assert (found.slope, found.base, found.calls) == (1.0, 0.0, 0)
        assert found.error == UNCALIBRATED_ERROR["characters"]
        assert found.billed(100) == 100


def test_a_line_leads_to_nothing_below_its_calls() -> None:
    """A short prompt is not taken for none."""
    assert Calibration(MODEL, "characters", slope=4.0, base=-500.0).billed(100) == 25


def test_calls_of_one_length_give_a_factor() -> None:
    """Where a line cannot be told from a factor, a factor is taken."""
    found = fitted(MODEL, "characters", [(100.0, 130.0), (101.0, 131.0), (99.0, 129.0)])
    assert found.base == 0
    assert found.billed(200) == pytest.approx(260, rel=0.01)
    assert found.calls == 3


@given(
    st.floats(0.5, 2.0),
    st.floats(0, 800),
    st.integers(20, 200),
    st.floats(0, 0.2),
    st.randoms(use_true_random=False),
)
def test_a_line_is_found_among_outliers(
    slope: float, base: float, calls: int, odd: float, chance: random.Random
) -> None:
    """Up to a fifth of the calls may be anything; the line is that of the others."""
    counts = [chance.uniform(50, 20_000) for _ in range(calls)]
    pairs = [(count, slope * count + base) for count in counts]
    for at in chance.sample(range(calls), int(odd * calls)):
        pairs[at] = (counts[at], pairs[at][1] * chance.choice([0.1, 3, 10]))
    found = fitted(MODEL, "characters", pairs)
    for count in (100, 1_000, 10_000):
        assert found.billed(count) == pytest.approx(slope * count + base, rel=0.15, abs=60)


@given(st.integers(30, 120), st.randoms(use_true_random=False))
def test_the_error_is_what_most_calls_keep(calls: int, chance: random.Random) -> None:
    """Nine of ten of the calls it learned from lie within the error it states."""
    pairs = [
        (count, (1.2 * count + 300) * chance.uniform(0.9, 1.1))
        for _ in range(calls)
        for count in [chance.uniform(20, 9_000)]
    ]
    found = fitted(MODEL, "characters", pairs)
    within = sum(abs(found.billed(count) - billed) <= found.error * billed for count, billed in pairs)
    assert within >= SHARE_WITHIN * calls - 1
    assert found.error < 0.25


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e7)), max_size=60))
def test_any_books_give_a_usable_line(pairs: list[tuple[float, float]]) -> None:
    """Whatever was billed, the slope is a sensible factor, and no count is negative."""
    found = fitted(MODEL, "cl100k_base", pairs)
    assert 0.25 <= found.slope <= 4
    assert found.error > 0
    assert found.billed(0) >= 0
