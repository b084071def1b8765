"""The stretch of time a page is about."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import period
import pytest

OSLO = ZoneInfo("Europe/Oslo")
KATHMANDU = ZoneInfo("Asia/Kathmandu")
NOW = datetime(2026, 11, 21, 15, 30, tzinfo=OSLO)


def of(preset: str, *dates: date, now: datetime = NOW, first: datetime | None = None) -> period.Period:
    """The period of a preset, at a fixed moment."""
    return period.period_of(preset, dates, now=now, first=first)


def test_days_begin_at_midnight_of_the_reporting_timezone() -> None:
    """Seven days are today and the six before it, from the first one's midnight in that timezone."""
    seven = of("7d", now=datetime(2026, 11, 21, 2, 0, tzinfo=KATHMANDU))
    assert seven.since == datetime(2026, 11, 15, 0, 0, tzinfo=KATHMANDU)
    assert seven.until is None
    assert (seven.step, seven.goes_on) == ("day", True)


def test_compared_with_the_same_hours_before() -> None:
    """Half of today is held against half of the day it is compared with."""
    assert of("7d").before == (
        datetime(2026, 11, 8, 0, 0, tzinfo=OSLO),
        datetime(2026, 11, 14, 15, 30, tzinfo=OSLO),
    )


def test_a_day_of_25_hours_is_one_day() -> None:
    """A period over the end of summer time begins at midnight of the wall clock, 25 hours before the next."""
    seven = of("7d", now=datetime(2026, 10, 26, 12, 0, tzinfo=OSLO))
    assert seven.since == datetime(2026, 10, 20, 0, 0, tzinfo=OSLO)
    assert seven.since is not None
    assert seven.since.utcoffset() == timedelta(hours=2)
    assert len(period.buckets(seven, now=datetime(2026, 10, 26, 12, 0, tzinfo=OSLO))) == 7


def test_24_hours_are_cut_in_hours() -> None:
    """The last 24 hours are the running one and the 23 before it."""
    last = of("24h")
    grid = period.buckets(last, now=NOW)
    assert last.step == "hour"
    assert (grid[0], grid[-1], len(grid)) == (datetime(2026, 11, 20, 16), datetime(2026, 11, 21, 15), 24)


def test_month_against_the_month_before() -> None:
    """This month so far is held against as much of last month."""
    month = of("Month")
    assert month.since == datetime(2026, 11, 1, tzinfo=OSLO)
    assert month.before == (datetime(2026, 10, 1, tzinfo=OSLO), datetime(2026, 10, 21, 15, 30, tzinfo=OSLO))


def test_the_31st_has_no_counterpart_in_february() -> None:
    """What is compared with never reaches into the month itself."""
    month = of("Month", now=datetime(2026, 3, 31, 12, 0, tzinfo=OSLO))
    assert month.before == (datetime(2026, 2, 1, tzinfo=OSLO), datetime(2026, 3, 1, tzinfo=OSLO))


def test_one_past_day() -> None:
    """A custom day that is over has both ends, is cut in hours, and is compared with the day before it."""
    day = of("Custom", date(2026, 11, 3))
    assert (day.since, day.until) == (datetime(2026, 11, 3, tzinfo=OSLO), datetime(2026, 11, 4, tzinfo=OSLO))
    assert day.before == (datetime(2026, 11, 2, tzinfo=OSLO), datetime(2026, 11, 3, tzinfo=OSLO))
    assert (day.step, day.goes_on, day.name) == ("hour", False, "3 Nov 2026")
    assert len(period.buckets(day, now=NOW)) == 24


def test_custom_range_that_holds_today_goes_on() -> None:
    """A custom range that ends today is still filling, so it has no end yet."""
    days = of("Custom", date(2026, 11, 20), date(2026, 11, 21))
    assert (days.until, days.goes_on, days.step) == (None, True, "day")
    assert days.before == (datetime(2026, 11, 18, tzinfo=OSLO), datetime(2026, 11, 19, 15, 30, tzinfo=OSLO))


def test_custom_without_dates_is_today() -> None:
    """A custom period that nobody filled in yet is today."""
    assert of("Custom").since == datetime(2026, 11, 21, tzinfo=OSLO)


@pytest.mark.parametrize(
    ("days_ago", "step", "bars"), [(0, "hour", 16), (20, "day", 21), (300, "week", 44), (2_000, "month", 67)]
)
def test_all_time_picks_bars_one_can_tell_apart(days_ago: int, step: str, bars: int) -> None:
    """All time is cut in hours, days, weeks or months, by how long ago it began."""
    first = datetime(2026, 11, 21, 0, 10, tzinfo=OSLO) - timedelta(days=days_ago)
    everything = of("All", first=first)
    assert (everything.since, everything.until, everything.before) == (None, None, None)
    assert everything.step == step
    assert len(period.buckets(everything, now=NOW, first=first)) == bars


def test_steps_without_calls_are_there() -> None:
    """Every day of the period has a place on the axis, today included."""
    grid = period.buckets(of("30d"), now=NOW)
    assert grid == [datetime(2026, 10, 23) + timedelta(days=n) for n in range(30)]


def test_weeks_begin_on_monday() -> None:
    """The step of a Sunday evening is the week that began six days earlier."""
    assert period.floor(datetime(2026, 11, 22, 23, 59), "week") == datetime(2026, 11, 16)
    assert period.floor(datetime(2026, 11, 22, 23, 59), "month") == datetime(2026, 11, 1)
