"""What the tests of budgets share: a ledger, rows to write into it, and calls that ask for money."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from llmnb import settings
from llmnb.budgeting.budget import Budget, all_budgets
from llmnb.budgeting.desk import Ask, Need
from llmnb.budgeting.reservations import Reservations
from llmnb.errors import StoreError
from llmnb.ledger import Store, open_ledger
from llmnb.ledger.connection import reading
from llmnb.records import Call
from llmnb.trouble import forget_warnings

NOON_US = 1_795_608_000_000_000
"""2026-11-25 12:00 UTC, a Wednesday."""
HOUR_US = 3_600_000_000

MakeCall = Callable[..., Call]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test has UTC for its reporting timezone, and hears every warning anew."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")
    forget_warnings()
    yield
    forget_warnings()


in_both = pytest.mark.parametrize("ledger", ["sqlite", "postgres"], indirect=True)
"""For tests of what holds in a file and in a team's database."""


@pytest.fixture
def ledger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The ledger of the settings, with nothing in it."""
    if getattr(request, "param", "sqlite") == "postgres":
        monkeypatch.setenv("LLMNB_STORE_URL", request.getfixturevalue("postgres").url)
    found = open_ledger()
    yield found
    found.close()


@pytest.fixture
def make_call() -> MakeCall:
    """A finished call that cost 220,000 nano-dollars and took 30 tokens; keywords change it."""
    numbers = itertools.count()

    def make(**changes: Any) -> Call:
        usual: dict[str, Any] = {
            "uid": f"call-{next(numbers):06d}",
            "ts": NOON_US,
            "model_requested": "claude-sonnet-5-5",
            "model": "claude-sonnet-5-5",
            "project": "thesis",
            "status": "ok",
            "input_tokens": 10,
            "output_tokens": 20,
            "cost_nanousd": 220_000,
        }
        return Call(**{**usual, **changes})

    return make


@pytest.fixture
def store(ledger: Store) -> Iterator[Reservations]:
    """The reservations of the ledger."""
    found = Reservations(ledger.path)
    yield found
    with suppress(StoreError):  # the test took it away
        found.close()


def ask(uid: str, amount: int, *, excess: int = 0, attempt: int = 1, ts: int = NOON_US, **call: Any) -> Ask:
    """A call that needs that many nano-dollars, and as many tokens."""
    fields = {"project": "thesis", "model_requested": "claude-sonnet-5-5", "model": "claude-sonnet-5-5", **call}
    need = Need(amount, excess)
    return Ask(uid, attempt, ts, {**fields, "uid": uid, "ts": ts}, {"usd": need, "tokens": need})


def rows(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a query says of the ledger, on a connection of its own."""
    with reading(settings.load().ledger_path) as connection:
        assert connection is not None
        return connection.execute(sql, parameters).fetchall()


def the_budget(budget_id: int = 1) -> Budget:
    """A budget as it is in the ledger."""
    with reading(settings.load().ledger_path) as connection:
        assert connection is not None
        return next(budget for budget in all_budgets(connection) if budget.id == budget_id)
