"""`unread_writes()`: what was written to the prompt cache and never read again, which is its write premium lost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmnb.ledger.connection import reading
from llmnb.ledger.filters import time_condition, time_range_us, where_condition
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.shelf import settle
from llmnb.ledger.zones import Moment, reporting_zone
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

_US = 1_000_000
_LIVES = {ttl: int(TTL_S[ttl] * _US) for ttl in ("5m", "1h")}
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
    zone, where_from = reporting_zone(settings), path or settings.ledger_path
    in_time, wanted = time_condition(*time_range_us(since, until, zone)), where_condition(where)
    now = time.time_ns() // 1000 if now_us is None else now_us
    settle(where_from)
    with reading(where_from) as connection:
        if connection is None:
            return frame(UNREAD_COLUMNS, [], zone)
        sql = _SELECT.format(in_time=in_time.sql, wanted=wanted.sql)
        parameters = (now, now, now, now, *in_time.parameters, *wanted.parameters)
        return frame(UNREAD_COLUMNS, connection.execute(sql, parameters).fetchall(), zone)


def _unread(tokens: str, ttl: str) -> str:
    """The condition of a write that nobody read in its life, which is over."""
    end = f"ts + {_LIVES[ttl]}"
    return f"{tokens} > 0 AND {end} <= ? AND (next_read IS NULL OR next_read > {end})"


_SELECT = f"""
    SELECT provider, model,
        sum(CASE WHEN five > 0 THEN 1 ELSE 0 END), sum(CASE WHEN {_unread("five", "5m")} THEN 1 ELSE 0 END),
        sum(five), sum(CASE WHEN {_unread("five", "5m")} THEN five ELSE 0 END),
        sum(CASE WHEN hour > 0 THEN 1 ELSE 0 END), sum(CASE WHEN {_unread("hour", "1h")} THEN 1 ELSE 0 END),
        sum(hour), sum(CASE WHEN {_unread("hour", "1h")} THEN hour ELSE 0 END)
    FROM (
        SELECT ts, provider, model, {_FIVE} AS five, {_HOUR} AS hour,
            min(CASE WHEN cache_read_tokens > 0 THEN ts END) OVER (
                PARTITION BY provider, model, project ORDER BY ts DESC, id DESC
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS next_read
        FROM calls WHERE {{in_time}} AND {{wanted}} AND source = 'live'
    ) AS followed
    GROUP BY provider, model HAVING sum(five) + sum(hour) > 0 ORDER BY sum(five) + sum(hour) DESC
"""  # noqa: S608 - our own text
