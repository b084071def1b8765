"""`unread_writes()`: what was written to the prompt cache and never read again, which is its write premium lost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llmnb.ledger.connection import reading
from llmnb.ledger.filters import time_condition, time_range_us, where_condition
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.shelf import settle
from llmnb.ledger.zones import Moment, reading_zone
from llmnb.places import Place
from llmnb.prompt_cache import TTL_S
from llmnb.settings import load

if TYPE_CHECKING:
    import pandas as pd

UNREAD_COLUMNS: dict[str, Kind] = {
    "provider": "text", "model": "text", "writes_5m": "int", "unread_writes_5m": "int", "written_5m_tokens": "int",
    "unread_5m_tokens": "int", "writes_1h": "int", "unread_writes_1h": "int", "written_1h_tokens": "int",
    "unread_1h_tokens": "int",
}  # fmt: skip
"""The columns of `unread_writes()`, in their order."""

Row = tuple[int, str, str | None, str | None, int, int, int]
_US = 1_000_000
_FIVE_US, _HOUR_US = (int(TTL_S[ttl] * _US) for ttl in ("5m", "1h"))
_FIVE, _HOUR = "(cache_write_5m_tokens + cache_write_unsplit_tokens)", "cache_write_1h_tokens"


def unread_writes(
    since: Moment = None,
    until: Moment = None,
    *,
    where: Mapping[str, object] | None = None,
    path: Place | None = None,
    now_us: int | None = None,
) -> pd.DataFrame:
    """What was written to the prompt cache by provider and model, and how much of it was certainly never read.

    A write counts as never read when no later call to the same model in the same project read anything from the cache
    before the write's lifetime had passed. The ledger keeps no prompts, so a read of another prefix counts as a read of
    this one: the true number may be larger, never smaller. What may still be read is not counted as unread. Only rows
    of the range are looked at, so that a read after `until` counts for nothing.

    Args:
        since, until, where, path: as for `usage()`. Read from the rows of the range.
        now_us: the moment at which it is asked, in microseconds since 1970; unset: now.

    Returns:
        A frame with the columns of `UNREAD_COLUMNS`: calls that wrote and those whose write was not read, and the
        tokens of both, for five minutes (also where the lifetime is not known) and for an hour.

    Raises:
        InvalidRequest: a name or a moment is not understood.
        StoreError: the ledger cannot be read.
    """
    settings = load()
    zone, where_from = reading_zone(settings), path or settings.ledger_path
    in_time, wanted = time_condition(*time_range_us(since, until, zone)), where_condition(where)
    now = time.time_ns() // 1000 if now_us is None else now_us
    settle(where_from)
    with reading(where_from) as connection:
        if connection is None:
            return frame(UNREAD_COLUMNS, [], zone)
        sql = _SELECT.format(in_time=in_time.sql, wanted=wanted.sql)
        found = _followed(connection.execute(sql, (*in_time.parameters, *wanted.parameters)), now)
    rows = [(*model, *counts) for model, counts in found.items()]
    return frame(UNREAD_COLUMNS, sorted(rows, key=lambda row: -(row[4] + row[8])), zone)


# to go through the rows once takes two thirds of the time that a window over them takes in SQLite
_SELECT = f"""
    SELECT ts, provider, model, project, {_FIVE}, {_HOUR}, cache_read_tokens FROM calls
    WHERE {{in_time}} AND {{wanted}} AND source = 'live' AND cache_read_tokens + {_FIVE} + {_HOUR} > 0
    ORDER BY ts DESC, id DESC
"""  # noqa: S608 - our own text


def _followed(rows: Iterable[Row], now: int) -> dict[tuple[str, str | None], list[int]]:
    """By provider and model: writes, those not read, their tokens, and those not read, for both lives."""
    next_read: dict[tuple[str, str | None, str | None], int] = {}
    found: dict[tuple[str, str | None], list[int]] = {}
    for ts, provider, model, project, five, hour, read in rows:  # the newest first
        same = (provider, model, project)
        if five or hour:
            counts = found.get(same[:2])
            if counts is None:
                counts = found[same[:2]] = [0] * 8
            for place, tokens, life in ((0, five, _FIVE_US), (4, hour, _HOUR_US)):
                if tokens:
                    counts[place] += 1
                    counts[place + 2] += tokens
                    if ts + life <= now and next_read.get(same, now + 1) > ts + life:
                        counts[place + 1] += 1
                        counts[place + 3] += tokens
        if read:
            next_read[same] = ts
    return found
