"""The reporting timezone, and instants: where days begin in it, and what "7d" or a date mean as `since`."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from llmnb.durations import text_s
from llmnb.errors import InvalidRequest
from llmnb.settings import Settings

Moment = datetime | date | str | None

UTC = timezone.utc  # noqa: UP017 - one name for the whole room
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SLOT_US = 15 * 60 * 1_000_000
"""Every timezone offset in use is a multiple of 15 minutes."""


def reporting_zone(settings: Settings) -> tzinfo:
    """The timezone of the settings, else the machine's own with its summer time, else UTC."""
    return settings.zone or _machine_zone()


_shown_in: ContextVar[tzinfo | None] = ContextVar("shown_in", default=None)


def reading_zone(settings: Settings) -> tzinfo:
    """The timezone that questions are answered in: the reporting one, unless inside `shown_in`."""
    return _shown_in.get() or reporting_zone(settings)


@contextmanager
def shown_in(zone: tzinfo | None) -> Generator[None]:
    """Has days cut in another timezone in the questions asked inside (None: in the reporting one).

    For who shows sums that are there in another one still (`upkeep.remaking`). Budgets keep their own.
    """
    before = _shown_in.set(zone)
    try:
        yield
    finally:
        _shown_in.reset(before)


def zone_name(zone: tzinfo) -> str:
    """The name of a timezone, as it is written beside the days that were cut in it."""
    return str(getattr(zone, "key", None) or zone)


def zone_named(name: str) -> tzinfo | None:
    """The timezone of that name; None when this machine knows none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return None


def _machine_zone() -> tzinfo:
    for name in (os.environ.get("TZ", "").lstrip(":"), _link_target("/etc/localtime")):
        try:
            if name:
                return ZoneInfo(name.rpartition("zoneinfo/")[2])
        except (ValueError, OSError, LookupError):
            continue
    try:
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return _other_zone()


def _other_zone() -> tzinfo:
    if os.name != "nt":
        return ZoneInfo("UTC")
    from dateutil import tz  # pandas brings it; Windows has no zone file

    return tz.tzlocal()


def _link_target(path: str) -> str:
    target = os.path.realpath(path)
    return target if "zoneinfo/" in target and Path(target).is_file() else ""


# Instants -------------------------------------------------------------------------------------------------------------


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(ts: int, zone: tzinfo) -> datetime:
    """The datetime in `zone` of microseconds since 1970."""
    return (EPOCH + timedelta(microseconds=ts)).astimezone(zone)


def instant_us(moment: Moment, zone: tzinfo, now_us: int) -> int | None:
    """Microseconds since 1970 of what a user gives as `since` or `until`; None stays None.

    A date, or text that is one, is the midnight in `zone` that begins it; a datetime without a timezone is in `zone`;
    "30m", "24h", "7d", "2w" go back from now.

    Raises:
        InvalidRequest: it is none of these.
    """
    if moment is None:
        return None
    if isinstance(moment, str):
        return _text_us(moment.strip(), zone, now_us)
    if isinstance(moment, datetime):
        return to_us(moment if moment.tzinfo else moment.replace(tzinfo=zone))
    if isinstance(moment, date):  # pyright: ignore[reportUnnecessaryIsInstance] - whoever calls may not check types
        return to_us(_midnight(moment, zone))
    raise InvalidRequest(
        f"{moment!r} is no point in time: give a datetime, a date, an ISO text, or '7d', '24h', '30m'."
    )


def _text_us(text: str, zone: tzinfo, now_us: int) -> int:
    if (ago_s := text_s(text)) is not None:
        return now_us - ago_s * 1_000_000
    try:
        when = date.fromisoformat(text) if "T" not in text and ":" not in text else datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no point in time: write '2026-11-21', '2026-11-21T09:30', '7d', '24h' or '30m'."
        ) from None
    return (
        to_us(when if when.tzinfo else when.replace(tzinfo=zone))
        if isinstance(when, datetime)
        else to_us(_midnight(when, zone))
    )


# Cutting time ---------------------------------------------------------------------------------------------------------


def _midnight(day: date, zone: tzinfo) -> datetime:
    # fold=0: where midnight comes twice the first counts, where it is skipped this is the instant the clock jumps
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _days(first: date) -> Iterator[date]:
    while True:
        yield first
        first += timedelta(days=1)


def _weeks(first: date) -> Iterator[date]:
    first -= timedelta(days=first.weekday())
    while True:
        yield first
        first += timedelta(days=7)


def _months(first: date) -> Iterator[date]:
    first = first.replace(day=1)
    while True:
        yield first
        first = (first + timedelta(days=32)).replace(day=1)


_CALENDARS: dict[str, Callable[[date], Iterator[date]]] = {"day": _days, "week": _weeks, "month": _months}

TIME_UNITS = ("hour", *_CALENDARS)
"""What time can be cut by; weeks begin on Monday."""


def cuts_us(unit: str, first_us: int, last_us: int, zone: tzinfo) -> list[int]:
    """Where hours, days, weeks or months of `zone` begin, from the one `first_us` is in to the first after `last_us`.

    An hour is a clock hour; when clocks go back, the hour that comes twice is two.
    """
    if unit == "hour":
        return _hour_cuts_us(first_us, last_us, zone)
    cuts: list[int] = []
    # a day early: next to the date line of a transition the local date may be off by one
    for day in _CALENDARS[unit](from_us(first_us, zone).date() - timedelta(days=1)):
        cut = to_us(_midnight(day, zone))
        if cut <= first_us:
            cuts = [cut]
        elif cut > cuts[-1]:
            cuts.append(cut)
        if cut > last_us:
            return cuts
    return cuts


def start_of_day_us(ts: int, zone: tzinfo) -> int:
    """Where the day of `zone` that a moment is in begins."""
    cuts = cuts_us("day", ts, ts, zone)
    return max(cut for cut in cuts if cut <= ts)


def _hour_cuts_us(first_us: int, last_us: int, zone: tzinfo) -> list[int]:
    cuts: list[int] = []
    slot = first_us // SLOT_US * SLOT_US - 4 * SLOT_US
    before = _hour(slot - SLOT_US, zone)
    while True:
        hour = _hour(slot, zone)
        if hour != before:
            cuts = [slot] if slot <= first_us else [*cuts, slot]
            if slot > last_us:
                return cuts
        slot, before = slot + SLOT_US, hour


def _hour(ts: int, zone: tzinfo) -> tuple[date, int, timedelta | None]:
    local = from_us(ts, zone)
    return local.date(), local.hour, local.utcoffset()
