"""Spans of time as a person writes them: 90, "30m", "24h", "7d", "2w", or a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta

from llmnb.errors import InvalidRequest
from llmnb.plain_numbers import real

Duration = float | str | timedelta

_TEXT = re.compile(r"(\d+)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def text_s(text: str) -> int | None:
    """Seconds in a text such as "30m"; None when it is no duration."""
    found = _TEXT.fullmatch(text.strip())
    return int(found[1]) * _SECONDS[found[2]] if found else None


def seconds(value: Duration, name: str) -> float:
    """Seconds in a number of seconds, a text or a timedelta.

    Raises:
        InvalidRequest: it is none of these, or not more than nothing; `name` is what was to be set.
    """
    found: float | None = None
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, str):
        found = text_s(value)
    elif (number := real(value)) is not None:
        found = float(number)
    if found is None or not 0 < found < float("inf"):
        raise InvalidRequest(f"{name} must be seconds, or a text such as '30m', '24h' or '7d', not {value!r}")
    return found
