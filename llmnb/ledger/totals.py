"""`usage()`: sums and percentiles of the calls on the books, by any dimension or span of time. Reads only, ever."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmnb.ledger.bookkeeping import settle
from llmnb.ledger.connection import reading
from llmnb.ledger.filters import Condition, grouping, time_condition, time_range_us, where_condition
from llmnb.ledger.frames import Kind, frame
from llmnb.ledger.zones import TIME_UNITS, Moment, cuts_us, reporting_zone
from llmnb.settings import load

if TYPE_CHECKING:
    import pandas as pd

TOKEN_COLUMNS = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
    "cache_write_unsplit_tokens", "output_tokens", "thinking_tokens", "web_search_requests", "web_fetch_requests",
)  # fmt: skip

TOTAL_COLUMNS: dict[str, Kind] = {
    "calls": "int", "errors": "int", **dict.fromkeys(TOKEN_COLUMNS, "int"), "cost_usd": "usd", "cost_nanousd": "int",
    "saved_usd": "usd", "unpriced_calls": "int", "estimated_calls": "int", "latency_p50_ms": "float",
    "latency_p95_ms": "float", "ttft_p50_ms": "float", "ttft_p95_ms": "float",
}  # fmt: skip
"""The columns of `usage()` after the dimensions, in their order."""

_SUMS = ", ".join(
    [
        "coalesce(sum(is_call), 0)",
        "coalesce(sum(is_call AND status IN ('error', 'truncated')), 0)",
        *(f"coalesce(sum({name}), 0)" for name in TOKEN_COLUMNS),
        "sum(cost_nanousd)",
        "sum(saved_nanousd)",
        "coalesce(sum(cost_nanousd IS NULL), 0)",
        "coalesce(sum(is_call AND estimated), 0)",
        # how long a cut-off call took says when it was cut off, and a cache hit says nothing about a model
        "json_group_array(latency_ms) FILTER"
        " (WHERE latency_ms IS NOT NULL AND is_call AND source = 'live' AND status = 'ok')",
        "json_group_array(ttft_ms) FILTER (WHERE ttft_ms IS NOT NULL AND is_call AND source = 'live')",
    ]
)


def usage(
    since: Moment = None,
    until: Moment = None,
    by: str | Iterable[str] = ("model",),
    *,
    where: Mapping[str, object] | None = None,
    path: Path | None = None,
) -> pd.DataFrame:
    """What was used and what it cost, summed over groups of calls.

    Args:
        since: the first moment: a datetime, a date or ISO text (its midnight), or "7d", "24h", "30m" back from now.
        until: the first moment after the range, given likewise.
        by: dimensions (project, session, user, notebook, cell, chat, run_id, batch_id, template, tag, provider,
            model_requested, model, status, source, stop_reason, error_type, service_tier) and at most one of hour, day,
            week (from Monday), month, cut in the reporting timezone; an empty list gives one row, the total.
        where: the value, or list of values, that a column must have; None stands for a missing value.
        path: the ledger file; unset: the one of the settings.

    Returns:
        A frame with the columns of `by` and then those of `TOTAL_COLUMNS`; spans of time in their order, otherwise the
        most expensive group first.

        `calls` counts calls, `errors` those that ended in an error or truncated. Tokens and costs include iterations
        billed on another model, in that model's group. Token columns are disjoint, `thinking_tokens` are inside
        `output_tokens`. `cost_usd` is the sum of what is priced (exact in `cost_nanousd`), missing when nothing is, and
        `unpriced_calls` says how many rows it lacks. `saved_usd` is what the prompt cache saved, less what writing to
        it cost, and what answers from disk would have cost. Percentiles are linear interpolations, in milliseconds:
        latency of live calls that ended ok, time to first token of live calls.

    Raises:
        InvalidRequest: a name or a moment is not understood.
        StoreError: the ledger cannot be read.
    """
    settings, names = load(), grouping(by)
    zone = reporting_zone(settings)
    start, end = time_range_us(since, until, zone)
    question = _Question(names, start, end, where_condition(where), zone)
    where_from = path or settings.ledger_path
    settle(where_from)
    with reading(where_from) as connection:
        rows = [_NOTHING] if connection is None and not names else []
        if connection is not None:
            rows = [_finished(row) for row in question.ask(connection)]
    kinds: dict[str, Kind] = {name: "time" if name in TIME_UNITS else "text" for name in names}
    return frame({**kinds, **TOTAL_COLUMNS}, _in_order(rows, names), zone)


_NOTHING = (0, 0, *(0 for _ in TOKEN_COLUMNS), None, None, None, 0, 0, None, None, None, None)


@dataclass(frozen=True, slots=True)
class _Question:
    names: tuple[str, ...]
    start_us: int | None
    end_us: int | None
    where: Condition
    zone: tzinfo

    def ask(self, connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
        unit = next((name for name in self.names if name in TIME_UNITS), None)
        in_time = time_condition(self.start_us, self.end_us)
        columns = ["span_start" if name == unit else name for name in self.names]
        # CROSS JOIN: one search of the index on ts per span, and never spans x calls comparisons
        tables = "calls" if unit is None else "spans CROSS JOIN calls ON ts >= span_start AND ts < span_end"
        sql = f"SELECT {', '.join([*columns, _SUMS])} FROM {tables} WHERE {in_time.sql} AND {self.where.sql}"  # noqa: S608
        parameters = (*in_time.parameters, *self.where.parameters)
        if unit is not None:
            sql = f"WITH spans (span_start, span_end) AS ({_SPANS}) {sql}"
            parameters = (json.dumps(self._spans(connection, unit)), *parameters)
        if columns:
            sql += f" GROUP BY {', '.join(columns)}"
        return connection.execute(sql, parameters).fetchall()

    def _spans(self, connection: sqlite3.Connection, unit: str) -> list[tuple[int, int]]:
        in_time = time_condition(self.start_us, self.end_us)
        sql = f"SELECT {{}}(ts) FROM calls WHERE {in_time.sql}"  # noqa: S608
        # two questions, since SQLite answers one min or one max from the index, but not both together
        first, last = (connection.execute(sql.format(f), in_time.parameters).fetchone()[0] for f in ("min", "max"))
        if first is None:
            return []
        cuts = cuts_us(unit, first, last, self.zone)
        return list(pairwise(cuts))


_SPANS = "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"


def _finished(row: tuple[Any, ...]) -> tuple[Any, ...]:
    *before, cost, saved, unpriced, estimated, latencies, ttfts = row
    latency, ttft = sorted(json.loads(latencies)), sorted(json.loads(ttfts))
    percentiles = [quantile(values, share) for values in (latency, ttft) for share in (0.5, 0.95)]
    return (*before, cost, cost, saved, unpriced, estimated, *percentiles)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which `share` of the ordered values lie, interpolated linearly; None without values."""
    if not ordered:
        return None
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _in_order(rows: list[tuple[Any, ...]], names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    spans = [index for index, name in enumerate(names) if name in TIME_UNITS]
    cost = len(names) + list(TOTAL_COLUMNS).index("cost_nanousd")

    def key(row: tuple[Any, ...]) -> tuple[Any, ...]:
        labels = [(row[index] is not None, row[index]) for index in range(len(names)) if index not in spans]
        return (*(row[index] for index in spans), -(-1 if row[cost] is None else row[cost]), *labels)

    return sorted(rows, key=key)
