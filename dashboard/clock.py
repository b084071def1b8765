"""Which timezone the pages speak in, and what to call it."""

from __future__ import annotations

from datetime import datetime, tzinfo

from llmnb import settings
from llmnb.ledger.zones import reading_zone


def zone() -> tzinfo:
    """The timezone in which the ledger cuts days: until sums in a new one are whole, the one before."""
    return reading_zone(settings.load())


def now() -> datetime:
    """This moment, on the clock of the reporting timezone."""
    return datetime.now(zone())


def zone_name(moment: datetime) -> str:
    """The timezone of `moment` with its offset then: Europe/Oslo (UTC+01:00)."""
    name = getattr(moment.tzinfo, "key", None) or moment.tzname() or "local time"
    offset = f"{moment:%z}"
    return "UTC" if name.endswith("UTC") else f"{name} (UTC{offset[:3]}:{offset[3:5]})"
