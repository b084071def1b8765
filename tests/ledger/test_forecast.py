"""month_end(): what is spent, what is to be expected, and how often the range holds."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from llmnb.ledger import Ledger, forecast, month_end
from tests.ledger.conftest import MakeCall

NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)  # a Saturday; nine days and a quarter are left


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Months begin at midnight UTC."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")


def at(when: datetime) -> int:
    """Microseconds since 1970."""
    return int(when.timestamp()) * 1_000_000


def test_equal_days_leave_no_doubt(ledger: Ledger, make_call: MakeCall) -> None:
    """Where all days are alike, the month ends at what is spent and the days that are left, to the nano-dollar."""
    for ago in range(1, 40):
        day = NOW - timedelta(days=ago)
        cost = 10 if day.weekday() >= 5 else 1_000
        ledger.write(make_call(ts=at(day), cost_nanousd=cost, project="a"))
        ledger.write(make_call(ts=at(day), cost_nanousd=7, project="b"))
    found = month_end(where={"project": "a"}, path=ledger.path, now=NOW)
    assert found is not None
    # 1 to 20 November: 15 working days, 5 days of weekends; then a quarter of Saturday, Sunday, Monday to Friday,
    # Saturday, Sunday, and Monday the 30th
    spent = 15 * 1_000 + 5 * 10
    rest = round(10 / 4) + 3 * 10 + 6 * 1_000
    assert (found.spent_nanousd, found.expected_nanousd) == (spent, spent + rest)
    assert (found.low_nanousd, found.high_nanousd) == (spent + rest, spent + rest)
    assert (found.ends_at, found.days) == (datetime(2026, 12, 1, tzinfo=UTC), 28)


def test_too_early_to_say(ledger: Ledger, make_call: MakeCall) -> None:
    """Less than a week of calls is no basis, and neither is no ledger."""
    assert month_end(path=ledger.path.with_name("none.db"), now=NOW) is None
    for ago in range(7):
        ledger.write(make_call(ts=at(NOW - timedelta(days=ago))))
    assert month_end(path=ledger.path, now=NOW) is None
    ledger.write(make_call(ts=at(NOW - timedelta(days=7))))
    found = month_end(path=ledger.path, now=NOW)
    assert found is not None
    assert found.days == 7


def test_the_range_holds_as_often_as_it_says() -> None:
    """Of months whose days scatter as widely as people's do, about eight in ten end inside of the range."""
    chance, inside, months = random.Random(7), 0, 120
    for _ in range(months):
        days = [round(chance.lognormvariate(10, 0.8)) for _ in range(28 + 15)]
        drawn = sorted(forecast._rests([days[:28], []], [False] * 15, 1.0))
        low, high = drawn[int(0.1 * (len(drawn) - 1))], drawn[int(0.9 * (len(drawn) - 1))]
        inside += low <= sum(days[28:]) <= high
    assert 0.70 <= inside / months <= 0.90
