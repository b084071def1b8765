"""Where hours, days, weeks and months begin, in zones that make it hard."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.errors import InvalidRequest
from llmnb.ledger.zones import cuts_us, from_us, instant_us, reporting_zone, to_us
from llmnb.settings import load

HARD_ZONES = [
    "UTC", "Europe/Oslo", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Eucla", "Pacific/Chatham",
    "Australia/Lord_Howe", "America/Santiago", "Asia/Beirut", "Africa/Cairo", "America/Havana", "Pacific/Kiritimati",
    "America/St_Johns", "Atlantic/Azores", "Africa/Casablanca",
]  # fmt: skip
NOW_US = to_us(datetime(2026, 11, 21, 12, tzinfo=UTC))


def us(*parts: int, zone: str = "UTC") -> int:
    """Microseconds since 1970 of a local time."""
    return to_us(datetime(*parts, tzinfo=ZoneInfo(zone)))  # type: ignore[misc]


moments = st.integers(us(2024, 1, 1), us(2028, 1, 1))


def key(unit: str, ts: int, zone: ZoneInfo) -> object:
    """The name of the day, week, month or hour that a moment is in."""
    local = from_us(ts, zone)
    if unit == "hour":
        return local.date(), local.hour, local.utcoffset()
    if unit == "week":
        return local.isocalendar()[:2]
    return local.date() if unit == "day" else (local.year, local.month)


@given(st.sampled_from(HARD_ZONES), st.sampled_from(["hour", "day", "week", "month"]), moments, st.integers(0, 10**12))
def test_cuts_agree_with_the_clock_on_the_wall(name: str, unit: str, first: int, length: int) -> None:
    """Between two cuts the wall says one day (hour, week, month), and across a cut two; the range is covered."""
    zone, last = ZoneInfo(name), first + length
    cuts = cuts_us(unit, first, last, zone)
    assert cuts[0] <= first
    assert last < cuts[-1]
    assert cuts == sorted(set(cuts))
    for start, end in itertools.pairwise(cuts):
        assert key(unit, start, zone) == key(unit, end - 1, zone) == key(unit, (start + end) // 2, zone)
        assert key(unit, start, zone) != key(unit, end, zone)
    assert cuts[1] > first


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Oslo", (2026, 3, 29), 23),
        ("Europe/Oslo", (2026, 10, 25), 25),
        ("America/New_York", (2026, 11, 1), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("America/Santiago", (2026, 9, 6), 23),  # midnight itself is skipped
        ("America/Havana", (2026, 11, 1), 25),  # midnight comes twice
        ("Asia/Kathmandu", (2026, 11, 21), 24),
    ],
)
def test_a_day_is_as_long_as_it_is(zone: str, day: tuple[int, int, int], hours: float) -> None:
    """Days on which clocks change have 23, 24.5 or 25 hours."""
    noon = us(*day, 12, zone=zone)
    start, end = cuts_us("day", noon, noon, ZoneInfo(zone))
    assert (end - start) / 3_600_000_000 == hours


def test_hours_of_a_zone_with_45_minutes() -> None:
    """An hour in Kathmandu begins a quarter past the hour of UTC."""
    start, end = cuts_us("hour", us(2026, 11, 21, 12, 0), us(2026, 11, 21, 12, 0), ZoneInfo("Asia/Kathmandu"))
    assert (start, end) == (us(2026, 11, 21, 11, 15), us(2026, 11, 21, 12, 15))


def test_the_hour_that_comes_twice_is_two() -> None:
    """02:30 in summer time and 02:30 in winter time are an hour apart."""
    first, second = us(2026, 10, 25, 0, 30), us(2026, 10, 25, 1, 30)
    cuts = cuts_us("hour", first, second, ZoneInfo("Europe/Oslo"))
    assert cuts == [us(2026, 10, 25, 0), us(2026, 10, 25, 1), us(2026, 10, 25, 2)]


@pytest.mark.parametrize(
    ("given_moment", "expected"),
    [
        ("7d", us(2026, 11, 14, 12)),
        ("24h", us(2026, 11, 20, 12)),
        ("30m", us(2026, 11, 21, 11, 30)),
        ("2w", us(2026, 11, 7, 12)),
        ("2026-11-21", us(2026, 11, 20, 23)),
        (date(2026, 7, 1), us(2026, 6, 30, 22)),
        ("2026-11-21T09:30", us(2026, 11, 21, 8, 30)),
        ("2026-11-21 09:30:00+05:30", us(2026, 11, 21, 4)),
        (datetime(2026, 7, 1, 9), us(2026, 7, 1, 7)),
        (datetime(2026, 7, 1, 9, tzinfo=UTC), us(2026, 7, 1, 9)),
        (None, None),
    ],
)
def test_what_a_moment_means(given_moment: object, expected: int | None) -> None:
    """Dates are midnights of the reporting timezone, here Oslo; spans go back from now."""
    assert instant_us(given_moment, ZoneInfo("Europe/Oslo"), NOW_US) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["yesterday", "7 days", "2026-13-01", "", "d7", 7])
def test_what_is_no_moment_is_refused(wrong: object) -> None:
    """The message shows what can be written."""
    with pytest.raises(InvalidRequest, match=r"no point in time.*7d"):
        instant_us(wrong, ZoneInfo("UTC"), NOW_US)  # type: ignore[arg-type]


def test_the_reporting_zone_is_the_setting_else_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """TZ is honoured, with its summer time, and the setting beats it."""
    monkeypatch.setenv("TZ", "America/New_York")
    assert datetime(2026, 7, 1, tzinfo=reporting_zone(load())).utcoffset() == timedelta(hours=-4)
    monkeypatch.setenv("LLMNB_TIMEZONE", "Asia/Kolkata")
    assert str(reporting_zone(load())) == "Asia/Kolkata"


@pytest.mark.parametrize("odd", ["", "nonsense", ":/usr/share/zoneinfo/Europe/Oslo", "../../etc/passwd"])
def test_an_odd_tz_variable_is_no_error(monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    """What Python cannot read falls back to the machine's own."""
    monkeypatch.setenv("TZ", odd)
    assert datetime(2026, 7, 1, tzinfo=reporting_zone(load())).utcoffset() is not None
