"""The SDK's own OpenTelemetry span of a call, with what the ledger knows of it: cost, source of the answer, project.

The SDK makes one span a call and has it ended by whoever reads the answer, which for a stream that is closed early is
before the ledger knows what was read. So the end of a span is held back until the row is there, with the time at which
it was asked for. No span is made here.
"""

from __future__ import annotations

import sys
import time
from threading import RLock
from typing import Any

from llmnb.records import Call, Ended
from llmnb.trouble import quietly

_OTEL = "opentelemetry.sdk.trace"
_SDKS = "com.anthropic.sdk"
_CONVERSATION = "gen_ai.conversation.id"
_OURS = ("project", "session", "notebook", "cell", "chat", "template", "tag", "run_id", "status", "source", "attempts",
         "cost_nanousd", "saved_nanousd", "price_id", "estimated", "ttft_ms")  # fmt: skip
"""What OpenTelemetry has no name for; under `llmnb.`, as in `llmnb export -f otel`."""


def of_attempt(known: CallSpan | None) -> CallSpan | None:
    """The SDK's span of the call that is sent here and now, if it has one; `known` is that of earlier attempts."""
    if _OTEL not in sys.modules:  # nobody records spans, and looking for one would cost every call
        return None
    try:
        from opentelemetry import trace

        span: Any = trace.get_current_span()
        scope = getattr(span, "instrumentation_scope", None)
        if not span.is_recording() or not str(getattr(scope, "name", "")).startswith(_SDKS):
            return None
        if known is None:
            return CallSpan(span)
        known.goes_on()
        return known
    except Exception as trouble:
        quietly("looking for a call's span", trouble, but="its OpenTelemetry span has no cost")
        return None


class CallSpan:
    """One span, which ends when both the SDK and the ledger are done with it."""

    def __init__(self, span: Any) -> None:
        self._span = span
        self._end = span.end
        self._lock = RLock()  # reentrant: a finalizer may end a stream in the middle of it
        self._is_told = False
        self._ended_at_ns: int | None = None
        span.end = self._end_when_told

    def goes_on(self) -> None:
        """Another attempt is made, of which there will be something to tell."""
        with self._lock:
            self._is_told = False

    def tell(self, ended: Ended) -> None:
        """The call, or an attempt of it, has ended."""
        try:
            rows = ended.rows
            attributes = _attributes(rows[0], rows)
            if rows[0].chat is not None and _CONVERSATION not in (self._span.attributes or {}):
                attributes[_CONVERSATION] = rows[0].chat
            self._span.set_attributes(attributes)
        except Exception as trouble:
            quietly("telling a span what its call cost", trouble, but="its OpenTelemetry span has no cost")
        with self._lock:
            self._is_told, at_ns = True, self._ended_at_ns
        if at_ns is not None:
            self._end(end_time=at_ns)

    def _end_when_told(self, end_time: int | None = None) -> None:
        with self._lock:
            if not self._is_told:
                self._ended_at_ns = self._ended_at_ns or end_time or time.time_ns()
                return
        self._end(end_time=end_time)


def _attributes(call: Call, rows: tuple[Call, ...]) -> dict[str, Any]:
    told = {f"llmnb.{name}": getattr(call, name) for name in _OURS}
    costs = [row.cost_nanousd for row in rows]
    known = [cost for cost in costs if cost is not None]
    if len(known) == len(costs):
        told["gen_ai.usage.cost"] = (
            sum(known) / 1e9
        )  # the conventions have no name for money; this one is in common use
        told["llmnb.cost_nanousd"] = sum(known)
    return {name: value for name, value in told.items() if value is not None}
