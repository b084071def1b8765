"""What is summed over calls: one expression a measure, the same for raw rows and for roll-ups.

All are integers, so that sums are exact and a row that changes can be taken out again. What is missing counts 0, and a
second measure counts how often it was there.
"""

from __future__ import annotations

from collections.abc import Iterable

TOKEN_COLUMNS = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
    "cache_write_unsplit_tokens", "output_tokens", "thinking_tokens", "web_search_requests", "web_fetch_requests",
)  # fmt: skip

_WRITING = "is_call AND source = 'live' AND status = 'ok' AND latency_ms > ttft_ms"

MEASURES: dict[str, str] = {
    "entries": "1",
    "calls": "is_call",
    "errors": "(is_call AND status IN ('error', 'truncated'))",
    "cached_calls": "(is_call AND source <> 'live')",
    "retries": "is_call * max(attempts - 1, 0)",
    "wait_us": "is_call * CAST(wait_ms * 1000 AS INTEGER)",
    **{name: f"coalesce({name}, 0)" for name in TOKEN_COLUMNS},
    "cost_nanousd": "coalesce(cost_nanousd, 0)",
    "unpriced_calls": "(cost_nanousd IS NULL)",
    "saved_nanousd": "coalesce(saved_nanousd, 0)",
    "saved_calls": "(saved_nanousd IS NOT NULL)",
    "estimated_calls": "(is_call AND estimated)",
    # what was written after the first token, and how long that took: the speed of a model
    "writing_tokens": f"iif({_WRITING}, output_tokens, 0)",
    "writing_us": f"iif({_WRITING}, CAST((latency_ms - ttft_ms) * 1000 AS INTEGER), 0)",
}
"""Measure → its value in a row of `calls`."""

NAMES = tuple(MEASURES)

# how long a cut-off call took says when it was cut off, and a cache hit says nothing about a model
LATENCY = "iif(is_call AND source = 'live' AND status = 'ok', latency_ms, NULL)"
TTFT = "iif(is_call AND source = 'live', ttft_ms, NULL)"
"""What percentiles are of."""

KEPT = (
    "ts", "project", "user", "provider", "model", "tag", "status", "source", "is_call", "attempts", "wait_ms",
    "latency_ms", "ttft_ms", *TOKEN_COLUMNS, "cost_nanousd", "saved_nanousd", "estimated",
)  # fmt: skip
"""The columns that measures, percentiles and the dimensions of roll-ups are made from."""


def summed(names: Iterable[str] = NAMES, sign: str = "") -> str:
    """Measures as sums over rows; `sign` is a column that a row counts with."""
    times = f"{sign} * " if sign else ""
    return ", ".join(f"coalesce(sum({times}{MEASURES[name]}), 0)" for name in names)


def added(names: Iterable[str] = NAMES) -> str:
    """Measures of a roll-up, summed."""
    return ", ".join(f"coalesce(sum({name}), 0)" for name in names)
