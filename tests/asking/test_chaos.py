"""Seeded chaos by every door and over both wires: afterwards the books and the bill agree, question by question."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from .chaos import run
from .chaos_world import World

pytest.importorskip("openai")

# streams are dropped on purpose, in the middle of what the HTTP library's own generators do
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
IN_CI = range(4)
A_HUNDRED = 100


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A server, and a ledger that all runs of a test share."""
    made = World(monkeypatch)
    yield made
    made.close()


def test_books_and_bill_agree(world: World) -> None:
    """A few runs."""
    for seed in IN_CI:
        run(world, seed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, 1_000, A_HUNDRED))
def test_books_and_bill_agree_a_thousand_times(world: World, first: int) -> None:
    """A thousand runs, a hundred a test; a seed that fails is in the error."""
    began, counts = time.monotonic(), Counter[str]()
    for seed in range(first, first + A_HUNDRED):
        try:
            counts += run(world, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    print(f"seeds {first}-{first + A_HUNDRED - 1} in {time.monotonic() - began:.0f} s: {dict(sorted(counts.items()))}")
