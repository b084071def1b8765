"""The stretch of time a page is about: its two ends, the stretch before it, and the steps its charts are cut in.

Days begin at midnight of the reporting timezone. Python adds days to a datetime on the wall clock of its timezone,
which is what is wanted here: a day of 23 or 25 hours is one day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Step = Literal["hour", "day", "week", "month"]

PRESETS = ("24h", "7d", "30d", "90d", "Month", "All", "Custom")
"""As the filter bar and the URL write them."""
DEFAULT = "30d"
_DAYS = {"7d": 7, "30d": 30, "90d": 90}


@dataclass(frozen=True, slots=True)
class Period:
    """`since` ≤ call < `until` (None: open), cut in steps of `step`; `name` is for reading.

    `before` is the stretch it is held against, if there is one, and `against` its name. When the period goes on, both
    cover the same hours: half a day is never held against a whole one.
    """

    name: str
    since: datetime | None
    until: datetime | None
    step: Step
    before: tuple[datetime, datetime] | None = None
    against: str = ""
    goes_on: bool = True


def period_of(preset: str, dates: Sequence[date], *, now: datetime, first: datetime | None = None) -> Period:
    """The period a filter bar asks for at the moment `now`, which is on the clock of the reporting timezone.

    `dates` are the first and last day of a custom period (one date: that day; none: today). `first` is the oldest call,
    from which "All" picks its step.
    """
    today = floor(now, "day")
    if preset == "24h":
        start, shift = floor(now, "hour") - timedelta(hours=23), timedelta(days=1)
        before = (start - shift, now - shift)
        return Period("the last 24 hours", start, None, "hour", before, "the 24 hours before")
    if preset == "Month":
        return _this_month(now)
    if preset == "All":
        return Period("all time", None, None, _step((today - floor(first or now, "day")).days + 1))
    if preset == "Custom":
        return _custom(dates or (now.date(),), now)
    days, shift = _DAYS[preset], timedelta(days=_DAYS[preset])
    start = today - timedelta(days=days - 1)
    before = (start - shift, now - shift)
    return Period(f"the last {days} days", start, None, _step(days), before, f"the {days} days before")


def buckets(period: Period, *, now: datetime, first: datetime | None = None) -> list[datetime]:
    """The beginnings of all steps of the period on the wall clock, oldest first, those without calls included."""
    end = min(period.until or now, now).replace(tzinfo=None)
    at = floor(period.since or first or now, period.step).replace(tzinfo=None)
    found: list[datetime] = []
    while at < end or not found:
        found.append(at)
        at = _next(at, period.step)
    return found


def floor(at: datetime, step: Step) -> datetime:
    """The beginning of the step that holds `at`, on the clock of `at`; weeks begin on Monday."""
    if step == "hour":
        return at.replace(minute=0, second=0, microsecond=0)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if step == "week":
        return midnight - timedelta(days=midnight.weekday())
    return midnight.replace(day=1) if step == "month" else midnight


def _next(at: datetime, step: Step) -> datetime:
    if step == "month":
        return (at + timedelta(days=32)).replace(day=1)
    return at + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[step]


def _step(days: int) -> Step:
    """Bars one can still tell apart: up to about a hundred."""
    if days <= 1:
        return "hour"
    if days <= 100:
        return "day"
    return "week" if days <= 700 else "month"


def _this_month(now: datetime) -> Period:
    start = floor(now, "month")
    last_month = floor(start - timedelta(days=1), "month")
    same_time = min(last_month + (now - start), start)  # the 31st has no counterpart in a shorter month
    return Period("this month", start, None, _step(now.day), (last_month, same_time), "as much of last month")


def _custom(dates: Sequence[date], now: datetime) -> Period:
    start, end = (floor(now, "day").replace(year=d.year, month=d.month, day=d.day) for d in (min(dates), max(dates)))
    end += timedelta(days=1)
    days = (end - start).days
    name = _day(min(dates)) if days == 1 else f"{_day(min(dates))} – {_day(max(dates))}"
    against = "the day before" if days == 1 else f"the {days} days before"
    if start <= now < end:
        before = (start - timedelta(days=days), now - timedelta(days=days))
        return Period(name, start, None, _step(days), before, against)
    return Period(name, start, end, _step(days), (start - timedelta(days=days), start), against, goes_on=now < start)


def _day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"  # %-d is not known on Windows
