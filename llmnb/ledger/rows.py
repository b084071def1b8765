"""`calls()`: the rows of the ledger as a data frame. Reads only, ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from llmnb.errors import InvalidRequest
from llmnb.ledger.connection import reading
from llmnb.ledger.filters import Condition, time_condition, time_range_us, where_condition
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.shelf import settle
from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import Moment, reading_zone
from llmnb.places import Place
from llmnb.plain_numbers import whole
from llmnb.settings import load

if TYPE_CHECKING:
    import pandas as pd

CALL_COLUMNS: dict[str, Kind] = {
    "uid": "text", "parent_uid": "text", "ts": "time", "project": "text", "session": "text", "user": "text",
    "notebook": "text", "cell": "text", "chat": "text", "run_id": "text", "batch_id": "text", "template": "text",
    "tag": "text", "provider": "text", "model_requested": "text", "model": "text", "status": "text", "source": "text",
    "is_call": "bool", "stop_reason": "text", "error_type": "text", "stream": "bool", "attempts": "int",
    "wait_ms": "float", "latency_ms": "float", "ttft_ms": "float", "input_tokens": "int", "cache_read_tokens": "int",
    "cache_write_5m_tokens": "int", "cache_write_1h_tokens": "int", "cache_write_unsplit_tokens": "int",
    "output_tokens": "int", "thinking_tokens": "int", "web_search_requests": "int", "web_fetch_requests": "int",
    "service_tier": "text", "speed": "text", "inference_geo": "text", "cost_usd": "usd", "cost_nanousd": "int",
    "saved_usd": "usd", "cache_breakpoints": "int", "cache_miss_reason": "text", "estimated": "bool",
    "price_id": "text", "request_id": "text", "estimated_input_tokens": "int", "estimated_by": "text",
}  # fmt: skip
"""The columns of `calls()`, in their order."""

_ALL = 1 << 62
_STORED = {"cost_usd": "cost_nanousd", "saved_usd": "saved_nanousd"}


def calls(
    since: Moment = None,
    until: Moment = None,
    *,
    where: Mapping[str, object] | None = None,
    limit: int | None = None,
    before: str | None = None,
    after: str | None = None,
    children: bool = False,
    content: bool = False,
    path: Place | None = None,
) -> pd.DataFrame:
    """The calls on the books, one row each, newest first.

    To read page by page, give `limit` and the `uid` of the last row you have as `before`: each page is found through
    the index on time, however far back it is, and calls that come meanwhile move nothing.

    Args:
        since: the first moment: a datetime, a date or ISO text (its midnight), or "7d", "24h", "30m" back from now.
        until: the first moment after the range, given likewise.
        where: the value, or list of values, that a column must have; None stands for a missing value.
        limit: how many rows at most.
        before: the `uid` of a call: only rows older than it, the newest of them first.
        after: the `uid` of a call: only rows newer than it; with `limit` those next to it (still newest first).
        children: also the rows of iterations that were billed on another model (`is_call` is False there).
        content: also the prompts and answers, as JSON text, where `log_content` was on.
        path: the ledger file; unset: the one of the settings.

    Returns:
        A frame with the columns of `CALL_COLUMNS`. `ts` is the start, in the reporting timezone; `*_ms` are
        milliseconds; token columns are disjoint (`input_tokens` are the uncached ones, `thinking_tokens` are inside
        `output_tokens`); `cost_usd` is missing when the call is unpriced, and made from the exact `cost_nanousd`.
        `saved_usd` is what the prompt cache saved of a live call (negative where writing to it cost more than reading
        saved, missing where nothing was cached), and of one answered from disk all that it would have cost.

    Raises:
        InvalidRequest: a name or a moment is not understood, or there is no call `before` or `after`.
        StoreError: the ledger cannot be read.
    """
    most = None if limit is None else whole(limit)
    if limit is not None and (most is None or most < 0):
        raise InvalidRequest(f"limit={limit}: give a number of rows, or None for all.")
    settings = load()
    zone = reading_zone(settings)
    kinds: dict[str, Kind] = {**CALL_COLUMNS, "content": "text"} if content else CALL_COLUMNS
    only_calls = Condition("TRUE" if children else "is_call", ())
    in_time = time_condition(*time_range_us(since, until, zone))
    conditions = [only_calls, in_time, where_condition(where)]
    where_from = path or settings.ledger_path
    settle(where_from)
    with reading(where_from) as connection:
        if connection is None:
            return frame(kinds, [], zone)
        conditions += [_beside(connection, uid, sign) for uid, sign in ((before, "<"), (after, ">")) if uid is not None]
        # next to `after` means the oldest of them; between the two ends `before` says where to begin
        upwards = after is not None and before is None and limit is not None
        rows = _call_rows(connection, kinds, conditions, most, "ASC" if upwards else "DESC")
    return frame(kinds, rows[::-1] if upwards else rows, zone)


def _beside(connection: Connection, uid: str, sign: str) -> Condition:
    """Rows older (<) or newer (>) than a call, by time and then by id, as they are ordered."""
    found = connection.execute("SELECT ts, id FROM calls WHERE uid = ?", (uid,)).fetchone()
    if found is None:
        raise InvalidRequest(f"there is no call with the uid {uid!r} to go on from: begin again without it.")
    ts, number = found
    # the plain comparison first: it is the one that the index answers
    return Condition(f"ts {sign}= ? AND (ts {sign} ? OR id {sign} ?)", (ts, ts, number))


def _call_rows(
    connection: Connection,
    kinds: Iterable[str],
    conditions: Iterable[Condition],
    limit: int | None,
    order: Literal["ASC", "DESC"],
) -> list[tuple[Any, ...]]:
    names = stored_columns(connection, kinds)
    where = " AND ".join(condition.sql for condition in conditions)
    parameters = [value for condition in conditions for value in condition.parameters]
    return connection.execute(
        f"SELECT {', '.join(names)} FROM calls WHERE {where} ORDER BY ts {order}, id {order} LIMIT ?",  # noqa: S608
        [*parameters, _ALL if limit is None else limit],
    ).fetchall()


def stored_columns(connection: Connection, names: Iterable[str]) -> list[str]:
    """The columns of the table that hold these columns of a frame."""
    there = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
    stored = [_STORED.get(name, name) for name in names]
    # an older ledger may lack a column, and a reader never migrates
    return [name if name in there else f"NULL AS {name}" for name in stored]
