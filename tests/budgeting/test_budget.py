"""A budget: which calls it is for, where its periods begin, and how it is said."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from llmnb.budgeting.budget import Budget, dollars
from llmnb.ledger.zones import from_us, to_us

from .conftest import HOUR_US, NOON_US


def budget(**changes: Any) -> Budget:
    usual: dict[str, Any] = {
        "id": 1, "per": "day", "unit": "usd", "project": None, "user": None, "model": None, "notebook": None,
        "allowance": 5_000_000_000, "timezone": "UTC",
    }  # fmt: skip
    return Budget(**{**usual, **changes})


def at(text: str, zone: str) -> int:
    return to_us(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


# Which calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "call", "concerned"),
    [
        ({}, {}, True),
        ({"project": "thesis"}, {"project": "thesis"}, True),
        ({"project": "thesis"}, {"project": "Thesis"}, False),
        ({"project": "thesis"}, {"project": None}, False),
        ({"user": "ann", "project": "thesis"}, {"project": "thesis", "user": "ann"}, True),
        ({"user": "ann", "project": "thesis"}, {"project": "thesis", "user": "bob"}, False),
        ({"notebook": "a.ipynb"}, {"notebook": "a.ipynb"}, True),
        ({"model": "claude-sonnet-5-5"}, {"model_requested": "claude-sonnet-5-5"}, True),
        ({"model": "claude-sonnet-5-5"}, {"model_requested": "claude-sonnet-5-5-20261101"}, True),
        ({"model": "claude-sonnet-5-5"}, {"model_requested": "claude-sonnet-5-5@20261101"}, True),
        ({"model": "claude-sonnet-5-5"}, {"model_requested": "claude-sonnet-5-51"}, False),
        ({"model": "claude-sonnet-5-5-20261101"}, {"model_requested": "claude-sonnet-5-5"}, False),
        ({"model": "claude-opus-*"}, {"model_requested": "claude-opus-5-5"}, True),
        ({"model": "*opus*"}, {"model_requested": "us.anthropic.claude-opus-5-5-v1:0"}, True),
        ({"model": "claude-opus-*"}, {"model_requested": "claude-sonnet-5-5"}, False),
        ({"model": "claude-opus-5-5"}, {"model_requested": "claude-sonnet-5-5", "model": "claude-opus-5-5"}, True),
    ],
)
def test_a_budget_is_for_the_calls_that_have_all_it_names(
    scope: dict[str, str], call: dict[str, Any], concerned: bool
) -> None:
    """Names are exact; a model counts whether it was asked for or served, with or without the date of its snapshot."""
    assert budget(**scope).concerns({"model_requested": "claude-haiku-5-5", **call}) is concerned


# When -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "begin", "end"),
    [
        ("hour", "2026-11-25T12:00", "2026-11-25T13:00"),
        ("day", "2026-11-25T00:00", "2026-11-26T00:00"),
        ("week", "2026-11-23T00:00", "2026-11-30T00:00"),
        ("month", "2026-11-01T00:00", "2026-12-01T00:00"),
    ],
)
def test_periods_are_those_of_the_calendar(per: Any, begin: str, end: str) -> None:
    """Cut in the budget's own timezone, and the first moment of the next is not part of one."""
    own = budget(per=per, timezone="Asia/Kathmandu")
    period = own.period(at("2026-11-25T12:34", "Asia/Kathmandu"))
    assert (period.start_us, period.end_us) == (at(begin, "Asia/Kathmandu"), at(end, "Asia/Kathmandu"))
    assert own.period(period.end_us or 0) != period
    assert own.period((period.end_us or 0) - 1) == period


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-25", 24)])
def test_days_on_which_clocks_change_are_shorter_or_longer(day: str, hours: int) -> None:
    """Midnight to midnight on the clocks of the timezone."""
    period = budget(timezone="Europe/Oslo").period(at(f"{day}T15:00", "Europe/Oslo"))
    assert period.start_us is not None
    assert period.end_us is not None
    assert period.end_us - period.start_us == hours * HOUR_US


def test_the_hour_that_comes_twice_is_two() -> None:
    """When clocks go back, an hourly budget begins anew in between."""
    own = budget(per="hour", timezone="Europe/Oslo")
    first = at("2026-10-25T02:30", "Europe/Oslo")
    assert own.period(first).end_us == own.period(first + HOUR_US).start_us


def test_any_24_hours_are_never_less_than_24_hours() -> None:
    """The window begins with the quarter of an hour in which it would, and what is ahead of the clock is in it."""
    own = budget(per="rolling 24h")
    for ts in range(NOON_US, NOON_US + HOUR_US, HOUR_US // 60):
        period = own.period(ts)
        assert period.start_us is not None
        assert 24 * HOUR_US <= ts - period.start_us < 24.25 * HOUR_US
        assert period.end_us is None


def test_a_total_has_neither_begin_nor_end() -> None:
    """All time is one place to count in."""
    period = budget(per="total").period(NOON_US)
    assert (period.start_us, period.end_us, period.slots) == (None, None, (0, 1))


def test_a_zone_that_this_machine_does_not_know_is_utc() -> None:
    """A budget set elsewhere is kept all the same."""
    period = budget(timezone="Atlantis/Capital").period(NOON_US)
    assert from_us(period.start_us or 0, ZoneInfo("UTC")).hour == 0


# In words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "$5.00 a day"),
        ({"per": "hour", "project": "thesis"}, "$5.00 an hour for project 'thesis'"),
        ({"per": "rolling 24h"}, "$5.00 in any 24 hours"),
        ({"per": "total", "unit": "tokens", "model": "claude-*", "user": "ann"},
         "5,000,000,000 tokens in total for user 'ann', model 'claude-*'"),
    ],
)  # fmt: skip
def test_a_budget_says_what_it_is(changes: dict[str, Any], text: str) -> None:
    """Limit, period and scope in one phrase."""
    assert str(budget(**changes)) == text


def test_a_budget_says_how_to_set_it() -> None:
    """The call that sets it can be copied, and changed."""
    own = budget(project="thesis", action="warn", unpriced=("my-model",), allowance=250_000_000)
    assert own.call() == (
        "llmnb.set_budget(usd=0.25, per='day', project='thesis', action='warn', allow_unpriced=['my-model'])"
    )
    assert budget().call(usd=10) == "llmnb.set_budget(usd=10, per='day')"
    assert budget(unit="tokens").call() == "llmnb.set_budget(tokens=5000000000, per='day')"


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [
        (0, "$0.00"),
        (5_000_000_000, "$5.00"),
        (1_234_567_000_000, "$1,234.57"),
        (250_000_000, "$0.25"),
        (4_321_000, "$0.004321"),
        (999_999_999, "$1.00"),
        (1, "$0.000000001"),
        (-20_000_000, "-$0.02"),
    ],
)
def test_dollars_are_readable_at_every_size(nanousd: int, text: str) -> None:
    """At least cents, and four digits of what is less than a dollar."""
    assert dollars(nanousd) == text


def test_limits_are_exact() -> None:
    """Dollars are Decimals, tokens whole numbers."""
    assert budget(allowance=1).limit == Decimal("1E-9")
    assert budget(unit="tokens", allowance=7).limit == 7
