"""Who wants to know of every call that has ended, such as metrics, and the log line that each call can leave.

The logger `llmnb.calls` gets one line a call at the level INFO, however the call ended, with the ledger row's fields as
the record's (`extra`), ready for a JSON formatter. Prompts and answers are never among them. Nothing is made where
nobody listens: by default `logging` takes warnings only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any

from llmnb.records import NANO, Call, Ended
from llmnb.trouble import quietly

Hearer = Callable[[Sequence[Call]], None]
"""Is told the rows of a call, its own first, in the thread that ended it; once, however many attempts it took."""

hearers: list[Hearer] = []
_log = logging.getLogger("llmnb.calls")
_LOGGED = tuple(column.name for column in fields(Call) if column.name != "content")


def is_heard() -> bool:
    """Whether anybody listens."""
    return bool(hearers) or _log.isEnabledFor(logging.INFO)


def tell(ended: Ended) -> None:
    """Tells everybody of a call that has ended for good; never raises."""
    try:
        rows = ended.rows
        for hear in tuple(hearers):
            hear(rows)
        if _log.isEnabledFor(logging.INFO):
            _log.info(_line(rows), extra=_fields(rows))
    except Exception as trouble:
        quietly("telling metrics or logs of a call", trouble, but="they lack it")


def _line(rows: Sequence[Call]) -> str:
    call, known = rows[0], _fields(rows)
    said = [call.model or call.model_requested, call.error_type or call.status]
    if call.source != "live":
        said.append(f"from {call.source}")
    said.append(f"{known['total_input_tokens']:,} in, {known['total_output_tokens']:,} out")
    cost = known.get("total_cost_nanousd")
    said.append("unpriced" if cost is None else f"${Decimal(cost) / NANO:f}")
    if call.latency_ms is not None:
        said.append(f"{call.latency_ms:,.0f} ms")
    if call.attempts > 1:
        said.append(f"{call.attempts} attempts")
    return " · ".join(said)


def _fields(rows: Sequence[Call]) -> dict[str, Any]:
    """The row's fields that say something, and what the answer and the models beside it used and cost in all."""
    call = rows[0]
    told: dict[str, Any] = {name: value for name in _LOGGED if (value := getattr(call, name)) is not None}
    told["total_input_tokens"] = sum(row.usage.total_input_tokens for row in rows)
    told["total_output_tokens"] = sum(row.output_tokens for row in rows)
    costs = [row.cost_nanousd for row in rows]
    priced = [cost for cost in costs if cost is not None]
    if len(priced) == len(costs):
        told["total_cost_nanousd"] = sum(priced)
        told["cost_usd"] = sum(priced) / 1e9
    return told
