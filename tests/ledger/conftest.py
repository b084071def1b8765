"""What the ledger's tests share: calls to write, and a ledger to write them to."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmnb.ledger import Ledger, Store, new_ledger
from llmnb.records import Call
from llmnb.trouble import forget_warnings

NOON_US = 1_795_608_000_000_000
"""2026-11-25 12:00 UTC."""

MakeCall = Callable[..., Call]


@pytest.fixture
def make_call() -> MakeCall:
    """A finished, priced call with a uid of its own; keywords change it."""
    numbers = itertools.count()

    def make(**changes: Any) -> Call:
        number = next(numbers)
        usual: dict[str, Any] = {
            "uid": f"call-{number:06d}",
            "ts": NOON_US + number,
            "model_requested": "claude-sonnet-5-5",
            "model": "claude-sonnet-5-5",
            "status": "ok",
            "input_tokens": 10,
            "output_tokens": 20,
            "cost_nanousd": 220_000,
        }
        return Call(**{**usual, **changes})

    return make


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a folder of its own."""
    found = Ledger(tmp_path / "store" / "ledger.db", busy_timeout_s=0.05)
    yield found
    found.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """The ledger of the settings, empty: what holds for a file holds for a team's database."""
    path = tmp_path / "store" / "ledger.db"
    place = path if request.param == "sqlite" else request.getfixturevalue("postgres")
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{path}" if place is path else place.url)
    found = new_ledger(place, busy_timeout_s=0.05)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def fresh_warnings() -> Iterator[None]:
    """Every test hears every warning anew."""
    forget_warnings()
    yield
    forget_warnings()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Lets warnings pass where a test is about something else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
